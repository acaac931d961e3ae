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
    # SDPA and FlexAttention keep what is True, nn.MultiheadAttention drops it; a float mask is taken for a bias
    "True in a mask means the one here and the other there": (
        "attention/test_masks.py::test_dense_is_the_definition",
        "attention/test_masks.py::test_bad_arguments",
        "attention/test_multi_head.py::test_a_causal_mask_and_padding_equal_torch",
    ),
    # pytorch 103963, 160064
    "NaN, or the mean of what is masked, for a query with nothing to attend to": (
        "attention/test_kernel_contract.py::test_a_query_with_nothing_to_attend_to_gets_zeros_and_moves_nothing",
        "attention/test_kernel_contract.py::test_what_stands_in_padding_shows_nowhere",
    ),
    # pytorch 103082, 108108
    "a causal mask aligned at the top left where a cache needs the bottom right": (
        "attention/test_masks.py::test_by_default_the_last_query_stands_at_the_last_key",
        "attention/test_layers.py::test_decoding_with_a_cache_equals_all_at_once",
    ),
    # pytorch 124464
    "weights that are dropped in evaluation too": ("attention/test_layers.py::test_dropout_only_in_training",),
    # dropout, a learned bias: SDPA on a CPU then keeps all weights
    "a fast kernel that is left without a word": (
        "attention/test_auto.py::test_explained_before_and_after_a_call",
        "attention/test_auto.py::test_explained_where_a_kernel_is_asked_for_and_others_refuse",
    ),
    # pytorch 116350
    "no second derivative": ("attention/test_kernels.py::test_eager_can_be_differentiated_twice",),
    # interleaved and half: incompatible weights under one name; angles in half precision are worthless far out
    "rotary positions of another layout, or of rounded angles": (
        "attention/test_positions.py::test_rotary_is_multiplication_with_a_rotation",
        "attention/test_positions.py::test_layouts_are_equal_up_to_a_permutation_of_the_features",
        "attention/test_positions.py::test_angles_are_precise_far_out",
    ),
    # w keys in transformers and litgpt, w + 1 in flash-attention
    "a window of one key more": ("attention/test_masks.py::test_a_causal_window_shows_as_many_keys_as_it_says",),
    # x-transformers
    "heads that share keys are another group than with SDPA": (
        "attention/test_multi_head.py::test_shared_heads_equal_repeated_ones",
    ),
    # Set Transformer's code divides by the square root of the whole width
    "a scale of the scores that nobody wrote down": (
        "attention/test_multi_head.py::test_the_kernel_gets_what_sdpa_needs_for_its_fused_path",
        "attention/sets/test_definitions.py::test_the_scale_is_on_record",
    ),
    "sums of weights in half precision": (
        "attention/test_kernel_contract.py::test_half_precision_errs_no_more_than_twice_as_much_as_eager",
    ),
    "parameters without a gradient, which stop distributed training": (
        "attention/test_layers.py::test_every_parameter_gets_a_gradient",
        "attention/test_positions.py::test_every_parameter_gets_a_gradient",
        "attention/test_blocks.py::test_every_parameter_gets_a_gradient",
    ),
    # transformers 31990, vit-explain 23, pytorch 98505
    "maps of attention that are empty, or slow down the model": (
        "attention/test_recording.py::test_what_is_computed_is_the_same_to_the_last_bit",
        "attention/test_recording.py::test_the_maps_times_the_values_are_the_output",
    ),
}
"""What went wrong -> the tests, by file and name."""


@pytest.mark.parametrize("fault", FAULTS)
def test_is_caught_by_a_test_that_is_there(fault: str) -> None:
    for place in FAULTS[fault]:
        file, _, name = place.partition("::")
        text = (TESTS / file).read_text(encoding="utf-8")
        assert re.search(rf"^def {name}\(", text, flags=re.MULTILINE), place
