"""Faults of well-known libraries, each with the test of ours that would have caught it.

Read in those projects' own files, or reported by their users (issue numbers are theirs).
"""

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent

FAULTS = {
    # disentangling-vae, PyTorch-VAE, pythae; rtqichen/beta-tcvae PR 1, disentangling-vae 58
    "beta-TCVAE's stratified weights in the first column instead of on the diagonal": (
        "latent/test_regularized.py::test_stratified_estimate_is_unbiased",
        "latent/test_regularized.py::test_stratified_weights_in_the_first_column_would_be_found",
    ),
    # disentangling-vae 78
    "MIG of a view where a transpose is needed": ("metrics/test_disentanglement.py::test_codes_that_are_the_factors",),
    # disentangling-vae
    "the test loss is that of the first batch divided by the number of batches": (
        "experiments/test_evaluation.py::test_the_bound_is_the_mean_over_every_row",
        "models/test_vae.py::test_evaluation_is_exact_whatever_the_batches",
    ),
    # PyTorch-VAE 11, 23, 35, 40, 56
    "a mean over pixels beside a sum over latents: a hidden weight on the KL": (
        "latent/test_likelihoods.py::test_log_prob_is_the_sum_over_dimensions",
        "latent/test_linear_gaussian.py::test_elbo_is_exact_on_average",
    ),
    # PyTorch-VAE
    "validation with another weight than training": (
        "models/test_vae.py::test_the_loss_is_the_objective_and_the_rest_is_only_watched",
    ),
    # PyTorch-VAE
    "the importance-weighted softmax taken over losses: the worst sample weighs most": (
        "latent/test_objectives.py::test_iwae_best_sample_weighs_most",
    ),
    # PyTorch-VAE 52, 99
    "networks for one size of image": (
        "networks/test_contract.py::test_images_of_any_size_can_be_encoded",
        "networks/test_contract.py::test_images_of_any_size_can_be_decoded",
        "models/test_hierarchy.py::test_any_image_and_any_number_of_layers",
    ),
    # PyTorch-VAE; 95
    "unknown keys swallowed, and a number that is a string dies inside the loss": (
        "experiments/test_configuration_errors.py::test_wrong_word_on_the_command_line",
    ),
    # pythae
    "another number of importance samples than was asked for": (
        "latent/test_importance.py::test_draws_exactly_what_was_asked_for",
        "experiments/test_evaluation.py::test_exactly_so_many_samples_of_exactly_so_many_images",
    ),
    # pythae
    "an unknown reconstruction loss fails inside the loss": (
        "models/test_parts.py::test_a_likelihood_of_other_data_is_refused",
        "experiments/test_configuration_errors.py::test_wrong_word_on_the_command_line",
    ),
    # pythae
    "checkpoints that hold code": ("training/test_checkpoint.py::test_nothing_but_plain_content_is_loaded",),
    # pythae PR 92
    "a training that was stopped cannot go on": ("training/test_resume.py::test_stopped_by_sigterm_and_resumed",),
    # pythae 96
    "no pipeline of evaluation": ("experiments/test_evaluation.py::test_evaluate_repeats_what_the_run_found",),
    # zoology 29
    "tokens between the queries of associative recall that give a key another value": (
        "data/test_tasks.py::test_every_recall_has_one_answer",
    ),
}
"""What went wrong -> the tests, by file and name."""


@pytest.mark.parametrize("fault", FAULTS)
def test_is_caught_by_a_test_that_is_there(fault: str) -> None:
    for place in FAULTS[fault]:
        file, _, name = place.partition("::")
        text = (TESTS / file).read_text(encoding="utf-8")
        assert re.search(rf"^def {name}\(", text, flags=re.MULTILINE), place
