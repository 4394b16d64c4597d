# Both policies by turns on one running VM: the effect that is there is found, one that is not is not, and whatever ends an
# experiment leaves the policy as it was. Leaves everything in $OUT; `cargo xtask test` compares.
set -ex
policy=/sys/module/kvm_intel/parameters/preemption_timer_policy
busy="vmentry exercise tsc-deadline --count 100000000 --delta 20000"
windows="--window 30ms --washout 10ms --warmup 50ms"

vmentry ab $windows --rounds 12 --seed 23 -o $OUT/ab.hlog --format json -- $busy > $OUT/ab.json
cat $policy > $OUT/after-ab
vmentry compare $OUT/ab.hlog > $OUT/ab.txt
vmentry compare $OUT/ab.hlog --format html > $OUT/ab.html
code=0; vmentry compare $OUT/ab.hlog --fail-if 'pin_writes.mean>+0.1' 2> $OUT/ab.fail-if > /dev/null || code=$?
echo $code > $OUT/ab.code
vmentry report $OUT/ab.hlog --format json > $OUT/ab-report.json

vmentry ab $windows --rounds 12 --seed 97 --policies soft,soft -o $OUT/aa.hlog --format json -- $busy > $OUT/aa.json
vmentry compare $OUT/aa.hlog > $OUT/aa.txt

# Ended within a window of the hard policy, and by an error.
for signal in INT TERM; do
    vmentry ab --window 60s --washout 10ms --warmup 50ms --policies hard,hard -o $OUT/ab-$signal.hlog -- $busy > $OUT/ab-$signal.txt 2>&1 &
    until [ "$(cat $policy)" = hard ]; do sleep 0.05; done
    sleep 0.5
    kill -$signal $!
    wait $! || true
    cat $policy > $OUT/after-ab-$signal
done
vmentry ab --arm "hard=echo hard > $policy" --arm "none=false" --restore "echo soft > $policy" --window 50ms --washout 20ms --seed 1 \
    -o $OUT/ab-arm.hlog > $OUT/ab-arm.txt 2>&1 && exit 1
cat $policy > $OUT/after-ab-arm
