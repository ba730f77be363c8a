#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# From nothing to predictions on new slides: makes a synthetic cohort, extracts features, trains, evaluates, infers.
# Usage: demo.sh [FOLDER [PATIENTS]]. Typed again, it goes on where it was.
set -euo pipefail
here=$PWD
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
demo=${1:-demo} patients=${2:-144}
case $demo in /*) ;; *) [ $# -eq 0 ] || demo=$here/$demo ;; esac

cohort=$demo/cohort_$patients new=$demo/new_patients
# Other settings, other folders: what was made with them stays, and is not taken for what these would make.
work=$demo/run_$(cat scripts/demo.sh bundle/configs/*.json bundle/configs/*/*.json | cksum | cut -d ' ' -f 1)_$patients
extract="['bundle/configs/extract.json','bundle/configs/extractors/resnet18.json']"
train="['bundle/configs/train.json','bundle/configs/recipe.json']"
evaluate="['bundle/configs/train.json','bundle/configs/recipe.json','bundle/configs/evaluate.json']"
patches=(--mpp 1.0 --patch_size 112)

step() { printf '\n\033[1m== %s (%d s)\033[0m\n' "$1" "$SECONDS"; }
run() { python -m monai.bundle run "$@"; }
train_and_evaluate() { # NAME CONFIGS [OPTION...]
    local name=$1 configs=$2
    shift 2
    local folders=(--dataset_dir "$cohort" --features_dir "$work/features" --output_dir "$work/$name")
    local tracking=(--tracking_uri "sqlite:///$work/mlflow.db" --run_name "$name")
    if [ ! -f "$work/$name/evaluation/metrics.json" ]; then
        run training --config_file "$configs" "${folders[@]}" "${patches[@]}" "${tracking[@]}" "$@" --resume true
        run evaluating --config_file "$evaluate" "${folders[@]}" "${tracking[@]}"
    fi
}

step "1/5  A synthetic cohort: $patients patients with slides and clinical records"
[ -d "$cohort" ] || python scripts/make_demo_cohort.py --output "$cohort" --patients "$patients" --seed 0 --size 4096
[ -d "$new" ] || python scripts/make_demo_cohort.py --output "$new" --patients 6 --seed 1 --size 4096

step "2/5  Features of every patch, by a ResNet18 with random weights"
run extracting --config_file "$extract" "${patches[@]}" --dataset_dir "$cohort" --features_dir "$work/features"
run extracting --config_file "$extract" "${patches[@]}" --dataset_dir "$new" --features_dir "$work/new_features" \
    --extractor_weights "$work/features/extractor.pt"

export OMP_NUM_THREADS=1 # from here on the network is small: threads would wait for each other longer than they help
step "3/5  Training PersAM on them and on the records, and evaluating it on patients that were kept aside"
train_and_evaluate PersAM "$train"

step "4/5  The same for the image alone and for the record alone"
train_and_evaluate image_alone "${train%]},'bundle/configs/heads/gated_attention.json']" \
    --head#width 32 --head#projection_hidden null
train_and_evaluate record_alone "${train%]},'bundle/configs/heads/clinical.json']" --head#width 32

step "5/5  Inference on new patients"
run inference --config_file "bundle/configs/inference.json" \
    --dataset_dir "$new" --features_dir "$work/new_features" --output_dir "$work/PersAM"

python scripts/show_results.py "$work/PersAM" "$work/image_alone" "$work/record_alone"
step "Done"
