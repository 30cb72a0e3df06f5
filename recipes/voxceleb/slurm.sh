#!/usr/bin/env bash
#SBATCH --job-name=sv_ssl
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --output=%x-%j.log
# SimCLR-AM on VoxCeleb over two nodes of eight GPUs:
#
#   sbatch recipes/voxceleb/slurm.sh hparams/am.yaml --data_folder /data/VoxCeleb --noise_folder /data/musan
#
# A job that is requeued goes on from its last checkpoint. Activate your environment before sbatch.
set -euo pipefail

head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
exec srun torchrun --nnodes="$SLURM_NNODES" --nproc_per_node="$SLURM_GPUS_ON_NODE" --rdzv_backend=c10d \
    --rdzv_id="$SLURM_JOB_ID" --rdzv_endpoint="$head:29500" \
    recipes/voxceleb/train_simclr_am.py "$@" --precision bf16 --num_workers 7
