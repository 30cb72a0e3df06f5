"""Which tests are slow, start processes, or need the recordings of ../shared: one table for the whole folder.

A row is the beginning of a test's id (`verification/test_fuzz_scoring.py::test_damage`), below tests/, and its markers.
Tests that take the fixture `shared` are marked by it and need no row.
"""

MARKERS = [
    # Commands of a page, each in a process of its own.
    ("docs/test_docs_audio.py::test_the_page", "slow processes"),
    ("docs/test_docs_voxceleb.py::test_the_page", "slow processes"),
    ("docs/test_docs_embeddings.py::test_the_page_runs", "slow"),
    ("docs/test_docs_scoring.py::test_every_command_runs", "slow"),
    ("docs/test_docs_methods.py", "slow"),
    ("docs/test_commands.py", "slow"),
    # Runs of recipes and studies from end to end.
    ("training/test_experiment.py", "slow"),
    ("training/test_experiment.py::test_five_kills", "processes"),
    ("training/test_experiment.py::test_ctrl_c", "processes"),
    ("training/test_experiment_options.py", "slow"),
    ("training/test_methods_run.py", "slow"),
    ("training/test_few_labels.py", "slow"),
    ("training/test_labelled_clips.py::test_probes_learn", "slow"),
    ("training/test_run_folder.py::test_threads_decide_and_not_the_environment", "slow"),
    ("training/test_run_folder.py::test_a_run_is_resumed_with_the_threads_that_it_was_begun_with", "slow"),
    ("training/test_run_folder.py::test_a_result_goes_into_the_output_folder", "slow"),
    ("study/test_clips.py::test_the_grids_are_as_their_claims_want_them", "slow"),
    ("study/test_study.py::test_the_studies_give_no_option_that_their_recipes_refuse", "slow"),
    ("losses/test_losses_blocks.py::test_memory_does_not_grow_with_the_square", "slow"),
    ("losses/test_losses_dino.py::test_memory", "slow"),
    ("losses/test_losses_vicreg.py::test_wide_covariances", "slow"),
    ("methods/test_vector_world.py", "slow"),
    ("embeddings/test_extraction.py::test_a_kind_travels_with_what_is_skipped", "slow"),
    ("training/test_labelled_clips.py::test_the_encoder_learns", "slow"),
    ("recipes/test_audio_probes.py", "slow"),
    ("recipes/test_diarization.py", "slow"),
    ("study/test_clips.py::test_a_true_study", "slow processes"),
    ("study/test_clips.py::test_ctrl_c", "slow processes"),
    ("analysis/test_sphere.py::test_tsne", "slow"),
    ("data/test_views.py::test_a_worker_says_nothing", "slow"),
    ("training/test_run_folder.py::test_of_what_differs", "slow"),
    ("study/test_study.py::test_ctrl_c", "processes"),
    ("study/test_study.py::test_a_true_run", "slow processes"),
    ("test_benchmarks.py", "slow"),
    ("test_guard_rails.py::test_writes_and_prints_what_it_did[extract", "slow"),
    ("test_guard_rails.py::test_the_study_has_help", "processes"),
    ("test_guard_rails.py::test_the_tables_of_old_results", "processes"),
    ("test_guard_rails.py::test_the_results", "processes"),
    ("test_style.py", "processes"),
    ("test_style.py::test_clean[mypy]", "slow"),
    # Several processes that learn, embed or prepare together.
    ("core/test_several_processes.py", "slow processes"),
    ("embeddings/test_extract_exact.py", "slow"),
    ("embeddings/test_extract_exact.py::test_two_shards", "processes"),
    ("embeddings/test_extract_exact.py::test_a_kill", "processes"),
    ("embeddings/test_extraction.py::test_neither_batch_nor_workers", "slow"),
    ("embeddings/test_extraction.py::test_windows_and_scored_crops_in_parts", "slow"),
    ("embeddings/test_extraction.py::test_damaged_rows_are_told_once_and_made_anew[1]", "slow"),
    ("embeddings/test_extraction.py::test_after_a_kill", "slow processes"),
    ("embeddings/test_extraction.py::test_ctrl_c", "slow processes"),
    ("embeddings/test_extraction.py::test_a_worker_that_dies", "processes"),
    ("embeddings/test_search.py::test_four_that_enrol_at_once", "processes"),
    ("data/test_synthetic_corpus.py", "slow"),
    ("data/test_synthetic_corpus.py::test_a_kill", "processes"),
    ("data_prep/test_voxceleb.py::test_a_full_tree", "slow"),
    ("data_prep/test_voxceleb.py::test_a_prepared_voxceleb", "slow"),
    ("data_prep/test_voxceleb.py::test_archives_are_read", "slow"),
    ("data_prep/test_other_corpora.py::test_other_formats_of_a_folder", "slow"),
    ("data_prep/test_other_corpora.py::test_each_is_a_command", "slow processes"),
    ("data_prep/test_prepared_clips.py::test_each_is_a_command", "slow processes"),
    ("cli/test_cli_score.py::test_a_closed_pipe", "processes"),
    # Commands that draw, several times.
    ("cli/test_outputs_are_kept.py::test_on_a_full_disk_the_old_stays_and_nothing_is_left[sv-score", "slow"),
    ("cli/test_outputs_are_kept.py::test_on_a_full_disk_the_old_stays_and_nothing_is_left[sv-analyze", "slow"),
    # Thousands of cases, or sizes at which time and memory are measured.
    ("verification/test_fuzz_scoring.py::test_damage", "slow"),
    ("verification/test_fuzz_scoring.py::test_a_file_that_ends_within_a_line", "slow"),
    ("verification/test_fuzz_scoring.py::test_a_gzip_file_that_lost_its_end", "slow"),
    ("verification/test_fuzz_scoring.py::test_odd_surroundings", "processes"),
    ("fuzz/test_fuzz.py", "slow processes"),
    ("diarization/test_cluster.py::test_an_hour", "slow"),
    ("diarization/test_cluster.py::test_memory", "slow"),
    # Exports to ONNX.
    ("models/test_onnx.py", "slow"),
    ("models/test_onnx.py::test_a_full_disk", "processes"),
    # The recordings and lists of ../shared.
    ("audio/test_io.py::test_opus_seeking", "shared"),
    ("audio/test_noise.py::test_the_noises_and_rooms_at_hand", "shared"),
    ("data/test_manifest.py::test_the_recordings_at_hand", "shared"),
    ("data/test_rttm.py::test_real_files", "shared"),
    ("data_prep/test_prepared_clips.py::test_the_spoken_words_that_are_here", "shared"),
    ("data_prep/test_voxceleb.py::test_published_lists_are_told", "shared"),
    ("verification/test_trials.py::test_public_lists", "shared"),
]


def markers_of(test_id):
    """Return the names of the markers of a test, by its id from the folder tests/ on."""
    return {name for beginning, names in MARKERS if test_id.startswith(beginning) for name in names.split()}
