# Continues known-exits.sh on kernels that get no longer test: VMWRITE sites, a short calibration, and the companion
# module if /bin/kvm-intel.ko is one. Leaves results in $OUT. MODULE is kvm_intel or kvm_amd.

echo 'hist:keys=exit_reason' > $events/kvm_exit/trigger
vmentry calibrate --samples 40 --exit cpuid --format json > $OUT/calibrate.json
cat $events/kvm_exit/hist > $OUT/calibrate.hist
echo '!hist:keys=exit_reason' > $events/kvm_exit/trigger

if [ $MODULE = kvm_intel ]; then
    vmentry record --verify-writes -o $OUT/sites.hlog -- sh -c \
        'vmentry exercise tsc-deadline --count 23; vmentry exercise nested --count 13' > /dev/null
    vmentry report $OUT/sites.hlog --format json > $OUT/sites.json
fi

if [ -e /bin/kvm-intel.ko ]; then
    dmesg -c > /dev/null
    rmmod kvm_intel
    module=$(find /lib/modules -name kvm-intel.ko)
    # vmentry looks for the loaded module's code there.
    cp /bin/kvm-intel.ko $module
    insmod $module
    vmentry policy hard > /dev/null
    kvmvmx=/sys/kernel/tracing/events/kvmvmx
    for guest in deadline:tsc-deadline:23 armed:nested-armed:19; do
        name=${guest%%:*}-hard
        scenario=${guest#*:}
        echo 'hist:keys=field,vmcs02' > $kvmvmx/kvm_vmcs_write/trigger
        echo 'hist:keys=cause,late' > $kvmvmx/kvm_preemption_timer_exit/trigger
        vmentry record --verify-writes -o $OUT/$name.hlog -- \
            vmentry exercise ${scenario%:*} --count ${scenario#*:} > /dev/null
        cat $kvmvmx/kvm_vmcs_write/hist > $OUT/$name.writes
        cat $kvmvmx/kvm_preemption_timer_exit/hist > $OUT/$name.causes
        echo '!hist:keys=field,vmcs02' > $kvmvmx/kvm_vmcs_write/trigger
        echo '!hist:keys=cause,late' > $kvmvmx/kvm_preemption_timer_exit/trigger
        vmentry report $OUT/$name.hlog --format json > $OUT/$name.json
    done
    dmesg | grep -iE 'warn|bug:|oops|call trace|rcu:' > $OUT/complaints || true
fi
