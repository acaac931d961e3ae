"""What an offline run of Weights & Biases has written, read back from the disk."""

import json
import struct
import time
from pathlib import Path
from typing import Any


def read_offline_run(folder: Path) -> list[Any]:
    """The records of a finished offline run; wandb's writer, a process of its own, may still be at work."""
    deadline = time.monotonic() + 30
    while not (records := read_log(folder)) or not records[-1].HasField("exit"):
        assert time.monotonic() < deadline, "the run has no end"
        time.sleep(0.05)
    return records


def read_log(folder: Path) -> list[Any]:
    """The whole records in the LevelDB log that wandb writes."""
    from wandb.proto.wandb_internal_pb2 import Record

    (path,) = folder.glob("run-*.wandb")
    content = path.read_bytes()
    assert content[:4] in (b":W&B", b"")
    records, data, position = [], b"", 7  # after the file's own header
    while position + 7 <= len(content):
        if (left := 32768 - position % 32768) < 7:  # too little for a header: the rest of the block is empty
            position += left
            continue
        _, length, kind = struct.unpack("<IHB", content[position : position + 7])
        data += content[position + 7 : position + 7 + length]
        position += 7 + length
        if position > len(content):
            break
        if kind in (1, 4):  # a whole record, or the last part of one
            record = Record()
            record.ParseFromString(data)
            records.append(record)
            data = b""
    return records


def history_of(records: list[Any]) -> list[dict[str, Any]]:
    """What was logged, one dict for each call; a picture is a dict of its own."""
    rows = []
    for record in records:
        if record.HasField("history"):
            row: dict[str, Any] = {}
            for item in record.history.item:
                *outer, name = item.nested_key or [item.key]
                place = row
                for key in outer:
                    place = place.setdefault(key, {})
                place[name] = json.loads(item.value_json)
            rows.append(row)
    return rows
