#!/bin/bash
# As many workers as you like, on any nodes that see the store:  qsub pbs.sh
# Afterwards, anywhere that sees the store:                      harness ablate --study task3 --store /shared/mlruns
#PBS -N harness
#PBS -J 0-63
#PBS -l select=1:ncpus=4:mem=8gb
#PBS -l walltime=04:00:00
#PBS -r y
#PBS -j oe

cd "${PBS_O_WORKDIR:-.}" || exit 2
STUDY=${STUDY:-task3}
STORE=${STORE:-/shared/mlruns}

# --for ends before walltime does; --grace is less than the queue's kill_delay (10 s by default).
exec harness worker --study "$STUDY" --store "$STORE" --jobs "${NCPUS:-4}" --for 3h55m --grace 8s
