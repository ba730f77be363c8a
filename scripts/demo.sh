#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# From nothing to predictions on new slides: makes a synthetic cohort, extracts features, trains, evaluates, infers.
# Usage: demo.sh [FOLDER]
set -euo pipefail
here=$PWD
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
demo=${1:-demo}
case $demo in /*) ;; *) [ $# -eq 0 ] || demo=$here/$demo ;; esac

step() { printf '\n\033[1m== %s\033[0m\n' "$1"; }
run() { python -m monai.bundle run "$@"; }
train="['bundle/configs/train.json','bundle/configs/demo.json','bundle/configs/frozen.json']"
evaluate="['bundle/configs/train.json','bundle/configs/demo.json','bundle/configs/evaluate.json','bundle/configs/frozen.json']"

step "1/5  A synthetic cohort: 144 patients with slides and clinical records"
[ -d "$demo/cohort" ] || python scripts/make_demo_cohort.py --output "$demo/cohort" --patients 144 --seed 0 --size 4096
[ -d "$demo/new_patients" ] || python scripts/make_demo_cohort.py --output "$demo/new_patients" --patients 6 --seed 1 --size 4096

step "2/5  Features of every patch, by a ResNet50 with random weights"
run extracting --config_file bundle/configs/extract.json --dataset_dir "$demo/cohort" --mpp 0.5 --precision bf16
run extracting --config_file bundle/configs/extract.json --dataset_dir "$demo/new_patients" --mpp 0.5 --precision bf16 \
    --extractor_weights "$demo/cohort/features/extractor.pt"

step "3/5  Training PersAM on them and on the records, and evaluating it on patients that were kept aside"
run training --config_file "$train" --dataset_dir "$demo/cohort" --output_dir "$demo/output" --overwrite true
run evaluating --config_file "$evaluate" --dataset_dir "$demo/cohort" --output_dir "$demo/output"

step "4/5  The same for the image alone and for the record alone"
for head in GatedAttentionMILHead ClinicalHead; do
    run training --config_file "$train" --dataset_dir "$demo/cohort" --output_dir "$demo/$head" --overwrite true \
        --head#_target_ "persam_monai.networks.$head"
    run evaluating --config_file "$evaluate" --dataset_dir "$demo/cohort" --output_dir "$demo/$head"
done

step "5/5  Inference on new patients"
run inference --config_file "['bundle/configs/inference.json','bundle/configs/frozen.json']" \
    --dataset_dir "$demo/new_patients" --output_dir "$demo/output"

python scripts/show_results.py "$demo/output" "$demo/GatedAttentionMILHead" "$demo/ClinicalHead"
