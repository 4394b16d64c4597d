# Both policies by turns on one running VM: the effect that is there is found, one that is not is not, and whatever ends an
# experiment leaves the policy as it was. Leaves everything in $OUT; `cargo xtask test` compares.
set -e
policy=/sys/module/kvm_intel/parameters/preemption_timer_policy
# On one CPU a guest that only spins would keep the windows' ends waiting.
cgroup=/sys/fs/cgroup/guest
mount -t cgroup2 none /sys/fs/cgroup
echo +cpu > /sys/fs/cgroup/cgroup.subtree_control
mkdir $cgroup
echo 1 > $cgroup/cpu.weight
timers="echo \$\$ > $cgroup/cgroup.procs; exec vmentry exercise tsc-deadline --count 100000000 --delta 500000"

experiment() {
    vmentry ab --window 60ms --washout 10ms --warmup 50ms "$@" -- sh -c "$timers"
}

experiment --rounds 12 --seed 23 -o $OUT/ab.hlog --format json > $OUT/ab.json
cat $policy > $OUT/after-ab
vmentry compare $OUT/ab.hlog > $OUT/ab.txt
vmentry compare $OUT/ab.hlog --format html > $OUT/ab.html
code=0
vmentry compare $OUT/ab.hlog --fail-if 'pin_writes.mean>+0.1' > /dev/null 2> $OUT/fail-if || code=$?
echo $code > $OUT/fail-if.code
vmentry report $OUT/ab.hlog --format json > $OUT/report.json

# One experiment in twenty may see a change where there is none: the second one must not see it, too.
experiment --rounds 12 --seed 97 --policies soft,soft -o $OUT/aa.hlog --format json > $OUT/aa.json
if grep -qE '"verdict": "(better|worse|changed)"' $OUT/aa.json; then
    experiment --rounds 12 --seed 98 --policies soft,soft -o $OUT/aa-2.hlog --format json > $OUT/aa-2.json
fi

# Ended within a window of the hard policy; by a setting that cannot be made; by a policy that somebody else switched.
for signal in INT TERM; do
    vmentry ab --window 60s --washout 10ms --warmup 50ms --policies hard,hard -o $OUT/$signal.hlog > $OUT/$signal.txt 2>&1 &
    until [ "$(cat $policy)" = hard ]; do sleep 0.05; done
    sleep 0.5
    kill -$signal $!
    wait $!
    cat $policy > $OUT/after-$signal
done
vmentry ab --arm "hard=echo hard > $policy" --arm none=false --restore "echo soft > $policy" --window 50ms --washout 10ms --seed 1 \
    -o $OUT/arm.hlog > $OUT/arm.txt 2>&1 && exit 1
cat $policy > $OUT/after-arm
vmentry ab --window 2s --washout 10ms --policies soft,soft -o $OUT/else.hlog > $OUT/else.txt 2>&1 &
sleep 3
echo hard > $policy
wait $! && exit 1
cat $policy > $OUT/after-else
