# Records a Linux guest of QEMU under the hard and then the soft policy, while ftrace counts the same events. Leaves
# results in $OUT, which `cargo xtask claims` reports and checks. $GUEST is standard or hypervisor, $WORK says what it
# does (all, or none after its boot), $POLICIES are the policies, $NAME begins the names of its files, $GUESTS is the
# folder of the guests' kernel and initramfs, and $QEMU the program with its options.
set -e
events=/sys/kernel/tracing/events
triggers="kvm/kvm_entry:vcpu_id kvm/kvm_exit:exit_reason kvmvmx/kvm_vmcs_write:field,vmcs02 kvmvmx/kvm_preemption_timer_exit:cause"
# Skips the guest kernel's own certificates, random numbers from jitter and self-tests of ciphers.
parameters="console=ttyS0 quiet random.trust_cpu=on initcall_blacklist=load_system_certificate_list,jent_mod_init \
cryptomgr.notests mitigations=off tsc=reliable panic=1 reboot=t"

# NAME: records a whole life of the guest, from the start of QEMU to its end.
recorded() {
    for trigger in $triggers; do echo "hist:keys=${trigger#*:}" > $events/${trigger%:*}/trigger; done
    head -c 4194304 /dev/zero > $OUT/disk
    vmentry record --overwrite -o $OUT/$1.hlog --label $1 --interval 1s -- timeout 400 \
        $QEMU -accel kvm -cpu host -M microvm,rtc=off,pic=off,pit=off -m 300 -smp 1 -nodefaults -no-user-config \
        -display none -name guest=$GUEST,debug-threads=on \
        -chardev stdio,id=serial,signal=off,logfile=$OUT/$1.console -serial chardev:serial \
        -drive file=$OUT/disk,if=none,id=disk,format=raw -device virtio-blk-device,drive=disk \
        -kernel $GUESTS/vmlinux -initrd $GUESTS/$GUEST.cpio -append "$parameters name=$1 work=$WORK"
    for trigger in $triggers; do
        event=${trigger%:*}
        cat $events/$event/hist > $OUT/$1.${event#*/}
        echo "!hist:keys=${trigger#*:}" > $events/$event/trigger
    done
    rm $OUT/disk
    vmentry report $OUT/$1.hlog --format json > $OUT/$1.json
}

for policy in $POLICIES; do
    echo "$NAME$policy: recording"
    vmentry policy $policy
    recorded $NAME$policy
done
