#!/usr/bin/env bash
# A sweep on Slurm: Ray's head and the sweep on the first node, a worker on every other one. From a checkout that all
# nodes see, with its .venv (make), and a store in a folder that all nodes see:
#   AUTOPHAGY_STORE=/shared/autophagy sbatch --nodes 3 --gpus-per-node 4 deploy/slurm.sh strategy_by_keep_ratio
# A job that ran out of time goes on with the same command.
#SBATCH --job-name=autophagy
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --time=24:00:00
#SBATCH --output=autophagy-%j.log
set -euo pipefail
: "${AUTOPHAGY_STORE:?give a folder that all nodes see, or s3://bucket/prefix}"
cd "$SLURM_SUBMIT_DIR"
source .venv/bin/activate

umask 077
export RAY_AUTH_MODE=token # nodes are shared: whoever reaches Ray without a token could run code as you
ray get-auth-token --generate > /dev/null # in ~/.ray/auth_token, which all nodes see
chmod go= ~/.ray ~/.ray/auth_token 2> /dev/null || true # one that was there before; the doctor below looks again
export OMP_WAIT_POLICY=PASSIVE RAY_USAGE_STATS_ENABLED=0
export RAY_enable_metrics_collection=0 # metrics are told without a token
export RAY_idle_worker_killing_time_threshold_ms=60000 # starting a pooled process costs seconds of a CPU

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
address=$(srun --nodes=1 --ntasks=1 --nodelist="${nodes[0]}" hostname --ip-address | awk '{print $1}')
port=$((20000 + SLURM_JOB_ID % 20000)) # several jobs may share a network
gpus=${SLURM_GPUS_ON_NODE:-0}

start() { # NODE ARGUMENT...: ray on one node for as long as the job lasts
    srun --nodes=1 --ntasks=1 --overlap --nodelist="$1" \
        ray start "${@:2}" --num-cpus="$SLURM_CPUS_ON_NODE" --num-gpus="$gpus" --block &
}

alive() { # nodes in the cluster; 0 before there is one
    python -c 'import ray; ray.init(logging_level="ERROR"); print(sum(n["Alive"] for n in ray.nodes()))' 2> /dev/null ||
        echo 0
}

await() { # COUNT: wait for as many nodes, ten minutes at most
    local deadline=$((SECONDS + 600))
    until [ "$(alive)" -ge "$1" ]; do
        [ "$SECONDS" -lt "$deadline" ] || { echo "$(alive) of $1 nodes have come up; see the log above" >&2; exit 1; }
        sleep 2
    done
}

start "${nodes[0]}" --head --node-ip-address="$address" --port="$port" --dashboard-host=127.0.0.1
export RAY_ADDRESS=$address:$port
await 1
for node in "${nodes[@]:1}"; do
    start "$node" --address="$RAY_ADDRESS"
done
await "${#nodes[@]}"

# MLFLOW_TRACKING_URI=http://... sbatch ... tracks as well; without it run folders have all numbers.
tracking=(--tracking-uri "${MLFLOW_TRACKING_URI:-none}")
python -m autophagy doctor "${tracking[@]}"
python jobs/run_sweep.py "$@" "${tracking[@]}"
