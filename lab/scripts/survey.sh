# Surveys an emulated host with the companion module, on which a VM runs whose name must be nowhere, and ends a second
# survey early, which must detach, restore the policy and write what there is. Leaves results in $OUT.
set -e
policy=/sys/module/kvm_intel/parameters/preemption_timer_policy
hostname acme-prod7
cp "$(command -v vmentry)" /tmp/acme-db
/tmp/acme-db exercise hlt --count 100000000 > /dev/null 2>&1 &
guest=$!
sleep 1
cat $policy > $OUT/before

vmentry survey -o $OUT/host.html 2> $OUT/survey.txt
cat $policy > $OUT/after

# Ctrl-C during the calibration, which has switched the policy.
vmentry survey -o $OUT/cut.html 2> $OUT/cut.txt &
survey=$!
until grep -q '^4/5 calibrate' $OUT/cut.txt; do sleep 0.1; done
sleep 1
# A shell lets what runs in its background ignore SIGINT.
kill -TERM $survey
wait $survey
cat $policy > $OUT/after-cut
kill $guest

# An emulated CPU has no row.
if vmentry survey --check $OUT/host.json > $OUT/row.txt 2> $OUT/refused.txt; then exit 1; fi
