# Records a Linux guest of QEMU under timer policies, while ftrace counts the same events. Leaves results in $OUT, which
# `cargo xtask claims` reports and checks. $GUEST is standard or hypervisor, $WORK says what it does (all, or none after
# its boot), $POLICIES are the policies, $NAME begins the names of its files, $GUESTS is the folder of the guests' kernel
# and initramfs, and $QEMU the program with its options.
set -e
events=/sys/kernel/tracing/events
triggers="kvm/kvm_entry:vcpu_id kvm/kvm_exit:exit_reason kvmvmx/kvm_vmcs_write:field,vmcs02 kvmvmx/kvm_preemption_timer_exit:cause"
# Skips the guest kernel's own certificates, random numbers from jitter and self-tests of ciphers.
parameters="console=ttyS0 quiet random.trust_cpu=on initcall_blacklist=load_system_certificate_list,jent_mod_init \
cryptomgr.notests mitigations=off tsc=reliable panic=1 reboot=t"

# NAME COMMAND...: records a command from its start to its end.
recorded() {
    name=$1
    shift
    for trigger in $triggers; do echo "hist:keys=${trigger#*:}" > $events/${trigger%:*}/trigger; done
    vmentry record --overwrite -o $OUT/$name.hlog --label $name --interval 1s -- "$@"
    for trigger in $triggers; do
        event=${trigger%:*}
        cat $events/$event/hist > $OUT/$name.${event#*/}
        echo "!hist:keys=${trigger#*:}" > $events/$event/trigger
    done
    vmentry report $OUT/$name.hlog --format json > $OUT/$name.json
}

# NAME: records the guest's whole life.
guest() {
    head -c 4194304 /dev/zero > $OUT/disk
    recorded $1 timeout 400 $QEMU -accel kvm -cpu host -M microvm,rtc=off,pic=off,pit=off -m 300 -smp 1 \
        -nodefaults -no-user-config -display none -name guest=$GUEST,debug-threads=on \
        -chardev stdio,id=serial,signal=off,logfile=$OUT/$1.console -serial chardev:serial \
        -drive file=$OUT/disk,if=none,id=disk,format=raw -device virtio-blk-device,drive=disk \
        -kernel $GUESTS/vmlinux -initrd $GUESTS/$GUEST.cpio -append "$parameters name=$1 work=$WORK"
    rm $OUT/disk
}

for policy in $POLICIES; do
    echo "$NAME$policy: recording"
    if [ $policy = off ]; then
        # Only in the lab, where nobody else needs the module.
        module=$(find /lib/modules/$(uname -r) -name kvm-intel.ko)
        rmmod kvm_intel
        insmod $module preemption_timer=0
        recorded $NAME$policy vmentry exercise immediate --count 1009
    else
        vmentry policy $policy
        guest $NAME$policy
    fi
done
