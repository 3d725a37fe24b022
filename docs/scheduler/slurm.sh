#!/bin/bash
# As many workers as you like, on any nodes that see the store:  sbatch slurm.sh
# More of them at any time:                                      sbatch --array=0-15 slurm.sh
# Afterwards, anywhere that sees the store:                      harness ablate --study task3 --store /shared/mlruns
#SBATCH --job-name=harness
#SBATCH --array=0-63
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=4
#SBATCH --mem=8G
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=harness-%A-%a.out
# With GPUs:  #SBATCH --gpus-per-task=1  and below  --device cuda  instead of --jobs

STUDY=${STUDY:-task3}
STORE=${STORE:-/shared/mlruns}

# --for ends before --time does; --grace is less than the cluster's KillWait (30 s by default).
exec srun harness worker --study "$STUDY" --store "$STORE" --jobs "${SLURM_CPUS_PER_TASK:-4}" --for 3h55m --grace 20s
