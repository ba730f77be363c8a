#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# From nothing to predictions on new slides: makes a synthetic cohort, trains, evaluates, infers. Usage: demo.sh [FOLDER]
set -euo pipefail
here=$PWD
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
demo=${1:-demo}
case $demo in /*) ;; *) [ $# -eq 0 ] || demo=$here/$demo ;; esac

step() { printf '\n\033[1m== %s\033[0m\n' "$1"; }

step "1/4  A synthetic cohort: 36 patients with slides and clinical records"
[ -d "$demo/cohort" ] || python scripts/make_demo_cohort.py --output "$demo/cohort" --patients 36 --seed 0 --size 4096
[ -d "$demo/new_patients" ] || python scripts/make_demo_cohort.py --output "$demo/new_patients" --patients 6 --seed 1 --size 2048

step "2/4  Training PersAM end to end, from pixels and records"
python -m monai.bundle run training --config_file "['bundle/configs/train.json','bundle/configs/demo.json']" \
    --dataset_dir "$demo/cohort" --output_dir "$demo/output" --overwrite true

step "3/4  Evaluating on patients that were kept aside"
python -m monai.bundle run evaluating \
    --config_file "['bundle/configs/train.json','bundle/configs/evaluate.json','bundle/configs/demo.json']" \
    --dataset_dir "$demo/cohort" --output_dir "$demo/output"

step "4/4  Inference on new patients' slides"
python -m monai.bundle run inference --config_file bundle/configs/inference.json \
    --dataset_dir "$demo/new_patients" --output_dir "$demo/output" --patches_per_slide 48 --precision bf16

python scripts/show_results.py "$demo/output"
