# Runs `vmentry ab` on a running VM: soft against hard, where it must find a difference, soft against soft at five seeds,
# of which at most one may find any, one that stops when it knows, and experiments that end early, which must restore
# the policy. Leaves results in $OUT, which `cargo xtask test` checks.
set -e
policy=/sys/module/kvm_intel/parameters/preemption_timer_policy
# On one CPU, a guest that only spins would delay the ends of the windows, so it gets a low weight.
cgroup=/sys/fs/cgroup/guest
mount -t cgroup2 none /sys/fs/cgroup
echo +cpu > /sys/fs/cgroup/cgroup.subtree_control
mkdir $cgroup
echo 1 > $cgroup/cpu.weight
timers="echo \$\$ > $cgroup/cgroup.procs; exec vmentry exercise tsc-deadline --count 100000000 --delta 500000"

# No statistics in here, where they would take long; they take seconds on a real CPU.
experiment() {
    vmentry ab --window 60ms --washout 10ms --warmup 50ms --no-compare "$@" -- sh -c "$timers"
}

experiment --seed 23 -o $OUT/ab.hlog
cat $policy > $OUT/after-ab
vmentry report $OUT/ab.hlog --format json > $OUT/report.json
for seed in 97 98 99 100 101; do
    experiment --seed $seed --policies soft,soft --rounds 6 -o $OUT/aa-$seed.hlog
done

# One that stops as soon as it knows.
vmentry ab --until decided --primary pin_writes.mean --window 60ms --washout 10ms --warmup 50ms --seed 7 --no-compare \
    -o $OUT/decided.hlog -- sh -c "$timers" 2> $OUT/decided.txt
cat $policy > $OUT/after-decided

# A guest that ends in the middle.
sh -c "$timers" &
guest=$!
sleep 1
(
    until grep -q '"round":2' $OUT/ended.hlog 2> /dev/null; do sleep 0.1; done
    kill -9 $guest
) &
vmentry ab --window 60ms --washout 10ms --warmup 50ms --rounds 1000 --seed 7 --no-compare -o $OUT/ended.hlog \
    2> $OUT/ended.txt
wait
cat $policy > $OUT/after-ended

# Experiments that end early: by a signal within a window of the hard policy, by an arm that fails, and by a policy that
# another program has switched.
for signal in INT TERM; do
    # In the background it would ignore SIGINT.
    (
        until [ "$(cat $policy)" = hard ]; do sleep 0.05; done
        sleep 0.5
        kill -$signal $(cat /tmp/ab.pid)
    ) &
    # The code is that of the command, which is ended, too.
    sh -c 'echo $$ > /tmp/ab.pid; exec "$@"' sh vmentry ab --window 60s --washout 10ms --warmup 50ms --policies hard,hard \
        -o $OUT/$signal.hlog -- sh -c "$timers" > $OUT/$signal.txt 2>&1 || true
    wait $!
    cat $policy > $OUT/after-$signal
done
vmentry ab --arm "hard=echo hard > $policy" --arm none=false --restore "echo soft > $policy" --window 50ms --washout 10ms --seed 1 \
    -o $OUT/arm.hlog -- sh -c "$timers" > $OUT/arm.txt 2>&1 && exit 1
cat $policy > $OUT/after-arm
vmentry ab --window 2s --washout 10ms --policies soft,soft -o $OUT/else.hlog -- sh -c "$timers" \
    > $OUT/else.txt 2>&1 &
# After its first entries, which it waits for.
sleep 8
echo hard > $policy
wait $! && exit 1
cat $policy > $OUT/after-else
