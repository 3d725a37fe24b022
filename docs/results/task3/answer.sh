#!/usr/bin/env bash
# Every cell of the answer, from the first look to the packed store; stopped anywhere, the same command continues.
#
#     docs/results/task3/answer.sh IMAGES DEVICE JOBS [HARNESS OPTIONS]
#
# IMAGES: a folder with train/CLASS/*.jpg and test/CLASS/*.jpg. Writes ./answer (the store), answer.txt (what was printed)
# and task3.harness (the cells without weights). Options go to every training command: `--profile quick` rehearses it.
set -euo pipefail

images=$1 device=$2 jobs=$3
shift 3
study=(--study task3 --store answer)
[[ " $* " == *" quick "* ]] || study+=(--data "image-folder:$images")
train=("${study[@]}" --device "$device" --jobs "$jobs" "$@")

harness() {
    echo "\$ harness $*"
    python -m harness "$@"
}

{
    harness doctor || true
    # Each change by itself, looked at with eight seeds and with ten; then what the report built of them.
    harness ablate "${train[@]}" --seeds 8 --horizon 10
    harness ablate "${train[@]}" --seeds 10 --horizon 10
    harness ablate "${train[@]}" --seeds 10 --horizon 10 --design path,combinations
    harness ablate "${train[@]}" --seeds 8 --horizon 10 --design leave-one-out --skip model-2
    # Figure 4: Model 2 without its dropout.
    harness ablate "${train[@]}" --seeds 3 --horizon 10 --design leave-one-out --only model-2,dropout-0.6
    # The winner on seeds that nothing used before.
    harness confirm "${train[@]}" --seeds 10
    # Whether the learning rate is what helped: each at its best of eight, six times.
    harness tune "${train[@]}" --only optimizer-adamax,batch-norm,augment-gentle --seeds 6 --trials 8
    harness pack task3 --store answer --output task3.harness
} | tee -a answer.txt
