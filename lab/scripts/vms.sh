# Records VMs of QEMU that run at the same time: machine types pc and microvm, three forms of -name, and a Linux guest
# with three vCPUs. Meanwhile ftrace counts the entries and exits of each thread, and QEMU says over QMP the name of each
# VM and the thread of each vCPU. Leaves results in $OUT. $GUESTS and $QEMU are those of claims.sh.
set -e
kvm=/sys/kernel/tracing/events/kvm

cat > /tmp/vms.sh <<'END'
set -e
# NAME OPTION...: starts a VM, whose process is then $!, and asks for its name and its threads.
vm() {
    name=$1
    shift
    mkfifo /tmp/$name.in /tmp/$name.out
    cat /tmp/$name.out > $OUT/$name.qmp &
    $QEMU -accel kvm -cpu host -nodefaults -no-user-config -display none -qmp pipe:/tmp/$name "$@" < /dev/null &
    echo $! > $OUT/$name.pid
    tell $name qmp_capabilities query-name query-cpus-fast
}

# NAME COMMAND...: sends commands to a VM.
tell() {
    to=$1
    shift
    for command in "$@"; do echo "{\"execute\": \"$command\", \"id\": \"$command\"}"; done > /tmp/$to.in
}

# Firmware without anything to boot.
vm firmware -M microvm -m 32 -name web1
vm unnamed -M pc -m 32
vm linux -M pc -m 300 -smp 3 -name guest=web2,debug-threads=on \
    -chardev file,id=serial,path=$OUT/linux.console -serial chardev:serial \
    -kernel $GUESTS/vmlinux -initrd $GUESTS/standard.cpio -append "$parameters name=linux work=none"
wait $!
tell firmware quit
tell unnamed quit
wait
END
export OUT GUESTS QEMU parameters

echo "VMs of QEMU: recording"
echo 'hist:keys=common_pid,vcpu_id' > $kvm/kvm_entry/trigger
echo 'hist:keys=common_pid,vcpu_id,exit_reason' > $kvm/kvm_exit/trigger
vmentry record --overwrite -o $OUT/vms.hlog --interval 1s -- timeout 400 sh /tmp/vms.sh
for event in kvm_entry kvm_exit; do cat $kvm/$event/hist > $OUT/vms.$event; done
echo '!hist:keys=common_pid,vcpu_id' > $kvm/kvm_entry/trigger
echo '!hist:keys=common_pid,vcpu_id,exit_reason' > $kvm/kvm_exit/trigger
vmentry report $OUT/vms.hlog --format json > $OUT/vms.json
