#!/usr/bin/env bash
# Slurm from Debian's packages on the loopback interface: `true` as one job array, and how many of them
# end a second. Prints `rate NUMBER` and `settings …`. Nothing is installed, and all ends with it.
#
#   slurm.sh ROOT SLOTS JOBS     ROOT: what setup.sh printed
set -euo pipefail
root=${1:?} slots=${2:?} jobs=${3:?}
lib=$root/usr/lib/x86_64-linux-gnu
export LD_LIBRARY_PATH=$lib:$lib/slurm-wlm PATH=$root/usr/bin:$PATH
dir=$(mktemp -d)
chmod 755 "$dir"
pids=()
end() {
    # newest first; what does not end by itself is killed
    for ((i = ${#pids[@]} - 1; i >= 0; i--)); do kill "${pids[i]}" 2>/dev/null || true; done
    for ((i = 0; i < 50; i++)); do
        local left=0
        for pid in "${pids[@]}"; do kill -0 "$pid" 2>/dev/null && left=1; done
        ((left)) || break
        sleep 0.1
    done
    for pid in "${pids[@]}"; do kill -9 "$pid" 2>/dev/null || true; done
    wait 2>/dev/null || true
    rm -rf "$dir"
}
trap end EXIT
trap 'exit 1' INT TERM
# dies with this script, however that ends
start() {
    setpriv --pdeathsig KILL -- "$@" >>"$dir/log" 2>&1 &
    pids+=($!)
}
fail() {
    echo "slurm: $1" >&2
    tail -20 "$dir"/log >&2
    exit 1
}
ports=($(python3 -c 'import socket
s = [socket.socket() for _ in range(2)]
for one in s: one.bind(("127.0.0.1", 0))
print(*(one.getsockname()[1] for one in s))'))
user=$(id -un)
settings="SelectType=select/cons_tres SelectTypeParameters=CR_CPU ProctrackType=proctrack/pgid TaskPlugin=task/none SchedulerType=sched/backfill SchedulerParameters=batch_sched_delay=0,sched_min_interval=1000"
mkdir "$dir"/{munge,state,spool}
chmod 700 "$dir/munge"
head -c 128 /dev/urandom >"$dir/munge/key"
chmod 600 "$dir/munge/key"
cat >"$dir/slurm.conf" <<END
ClusterName=bench
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmctldPort=${ports[0]}
SlurmdPort=${ports[1]}
SlurmUser=$user
SlurmdUser=$user
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket=$dir/munge/socket
PluginDir=$lib/slurm-wlm
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd.pid
SlurmctldLogFile=$dir/log
SlurmdLogFile=$dir/log
MpiDefault=none
ReturnToService=2
MaxArraySize=10001
MaxJobCount=20000
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SlurmdParameters=config_overrides
$(printf '%s\n' $settings)
NodeName=bench NodeAddr=127.0.0.1 CPUs=$slots State=UNKNOWN
PartitionName=bench Nodes=bench Default=YES MaxTime=5 State=UP
END
export SLURM_CONF=$dir/slurm.conf
start "$root/usr/sbin/munged" --foreground --force --key-file="$dir/munge/key" --socket="$dir/munge/socket" \
    --pid-file="$dir/munge/pid" --log-file="$dir/munge/log" --seed-file="$dir/munge/seed"
for ((i = 0; ; i++)); do
    [[ -S $dir/munge/socket ]] && break
    ((i < 100)) || { cat "$dir/munge/log" >>"$dir/log" 2>/dev/null; fail "munged does not come up"; }
    sleep 0.1
done
start "$root/usr/sbin/slurmctld-wlm" -D -f "$SLURM_CONF"
start "$root/usr/sbin/slurmd-wlm" -D -N bench -f "$SLURM_CONF" -d "$root/usr/sbin/slurmstepd-wlm"
for ((i = 0; ; i++)); do
    [[ $(timeout 5 sinfo -h -o %T 2>/dev/null) == idle ]] && break
    kill -0 "${pids[1]}" 2>/dev/null || fail "slurmctld ended"
    ((i < 150)) || fail "the node is not idle: $(timeout 5 sinfo -h -o '%T %E' 2>&1)"
    sleep 0.2
done
settings="Slurm $(sinfo --version | cut -d' ' -f2), $slots CPUs, $settings"
run() {
    timeout 20 sbatch -Q -n1 --array="1-$1" -o /dev/null -e /dev/null --wrap true
    for ((i = 0; i < 2000; i++)); do
        [[ -z $(timeout 10 squeue -h -t PD,R,CG,CF 2>/dev/null) ]] && return
        sleep 0.1
    done
    fail "jobs do not end"
}
run 2 # what is done once
began=$(date +%s.%N)
run "$jobs"
ended=$(date +%s.%N)
awk -v jobs="$jobs" -v from="$began" -v to="$ended" 'BEGIN { printf "rate %.2f\n", jobs / (to - from) }'
echo "settings $settings"
