// The calibration guest's machine code: 64-bit mode, loaded at LOAD and entered at its first byte. It reads the TSC with its first
// instruction after each VM entry and, apart from instructions that load the exiting instruction's operands, with its last one
// before each VM exit. These stamps stay in registers that neither KVM nor the exits change, where the program on kvm_exit reads
// them (StampedEvent):
//
//      R8   TSC at the first instruction after the last VM entry, all 64 bits
//      R9   TSC at the last stamp before a VM exit, low half
//      R10  number of the iteration, from 1
//      R11  the exiting instruction as a mark: MAGIC << 8 and the number of a step
//
// RBP points to the parameter block (the offsets below), R12 counts iterations down, R13 points to the next round trip in the list,
// R14 is the number of loop instructions between two stamps, R15 is MAGIC << 8, RBX counts interrupts. calibration.rs replaces the
// words in braces.

        .pushsection .rodata.vmentry_calibration, "a", @progbits
        .code64

        .set CAL_LOAD, {load}
        .set CAL_CODE_SELECTOR, {code_selector}
        .set CAL_WORK_PORT, {work_port}
        .set CAL_END_PORT, {end_port}
        .set CAL_TIMER_VECTOR, {timer_vector}

        .set CAL_PROGRAM, {program}
        .set CAL_COUNT, {count}
        .set CAL_DELTA, {delta}
        .set CAL_WORK, {work}
        .set CAL_FAR, {far}
        .set CAL_MAGIC, {magic}
        .set CAL_LIST, {list}
        .set CAL_LIST_BYTES, {list_bytes}
        .set CAL_FIRST_TSC, {first_tsc}
        .set CAL_LAST_TSC, {last_tsc}
        .set CAL_DONE, {done}

        .set CAL_MEASURED, {step_measured}
        .set CAL_DEBUG, {step_debug}
        .set CAL_AFTER, {step_after}
        .set CAL_ARM, {step_arm}
        .set CAL_CANCEL, {step_cancel}

        .set CAL_TSC_ADJUST, 0x3b               // as in kvm-unit-tests' rd_tsc_adjust_msr; reading it changes nothing
        .set CAL_TSC_DEADLINE, 0x6e0
        .set CAL_X2APIC_EOI, 0x80b
        .set CAL_X2APIC_SPURIOUS, 0x80f
        .set CAL_X2APIC_LVT_TIMER, 0x832
        .set CAL_APIC_ENABLE, 0x1ff
        .set CAL_TSC_DEADLINE_MODE, 0x40000
        .set CAL_POLL_IRQ, 1                    // KVM_HC_VAPIC_POLL_IRQ: the hypercall that does nothing and succeeds

        // The stamp after a VM entry, which must be the first instruction. EAX is its low half.
        .macro  cal_entered
        rdtsc
        shlq    $32, %rdx
        orq     %rdx, %rax
        movq    %rax, %r8
        .endm

        // The stamp before a VM exit.
        .macro  cal_leaving
        rdtsc
        movl    %eax, %r9d
        .endm

        // Appends the round trip of the last exit, from stamp to stamp, to the list. Must follow cal_entered.
        .macro  cal_keep
        subl    %r9d, %eax
        movl    %eax, (%r13)
        addq    $4, %r13
        .endm

        .macro  cal_step step
        leaq    \step(%r15), %r11
        .endm

        // Executes R14 loop instructions and two more.
        .macro  cal_work
        movl    %r14d, %ecx
        jrcxz   8f
9:      loop    9b
8:
        .endm

        // Ends an iteration: jumps back to local label 1, or ends the run.
        .macro  cal_next
        decl    %r12d
        jnz     1b
        jmp     .Lcal_end
        .endm

        .macro  cal_wrmsr msr, value
        movl    $\msr, %ecx
        movl    $\value, %eax
        xorl    %edx, %edx
        wrmsr
        .endm

        .macro  cal_timer_on
        cal_wrmsr CAL_X2APIC_SPURIOUS, CAL_APIC_ENABLE
        cal_wrmsr CAL_X2APIC_LVT_TIMER, CAL_TSC_DEADLINE_MODE + CAL_TIMER_VECTOR
        .endm

        // Arms a deadline CAL_DELTA ahead. This is an exit of its own, which is no sample.
        .macro  cal_arm
        xorl    %r11d, %r11d
        rdtsc
        addl    CAL_DELTA(%rbp), %eax
        adcl    $0, %edx
        movl    $CAL_TSC_DEADLINE, %ecx
        wrmsr
        cal_entered
        .endm

        .macro  cal_cpuid step
        cal_step \step
        xorl    %ecx, %ecx
        cal_leaving
        xorl    %eax, %eax
        cpuid
        cal_entered
        cal_keep
        .endm

        .globl vmentry_calibration_start
vmentry_calibration_start:
        // Touches the list's pages now, because the first access to each exits.
        movl    CAL_LIST(%rbp), %r13d
        movl    CAL_LIST_BYTES(%rbp), %ecx
        shrl    $12, %ecx
        movl    %r13d, %eax
1:      movl    $0, (%rax)
        addl    $0x1000, %eax
        decl    %ecx
        jnz     1b

        movl    CAL_COUNT(%rbp), %r12d
        movl    CAL_WORK(%rbp), %r14d
        movq    CAL_MAGIC(%rbp), %r15
        xorl    %r10d, %r10d
        xorl    %ebx, %ebx
        xorl    %r11d, %r11d
        movl    CAL_PROGRAM(%rbp), %eax
        movl    .Lcal_programs - vmentry_calibration_start + CAL_LOAD(, %rax, 4), %ecx
        rdtsc
        movl    %eax, CAL_FIRST_TSC(%rbp)
        movl    %edx, CAL_FIRST_TSC + 4(%rbp)
        jmp     *%rcx

        // Between the RDTSC of cal_entered and that of cal_leaving an iteration executes 14 instructions and the work.
.Lcal_cpuid:
1:      incq    %r10
        cal_work
        cal_cpuid CAL_MEASURED
        cal_next

.Lcal_vmcall:
        cal_step CAL_MEASURED
1:      incq    %r10
        cal_work
        cal_leaving
        movl    $CAL_POLL_IRQ, %eax
        vmcall
        cal_entered
        cal_keep
        cal_next

.Lcal_vmmcall:
        cal_step CAL_MEASURED
1:      incq    %r10
        cal_work
        cal_leaving
        movl    $CAL_POLL_IRQ, %eax
        vmmcall
        cal_entered
        cal_keep
        cal_next

.Lcal_out:
        cal_step CAL_MEASURED
1:      incq    %r10
        cal_work
        cal_leaving
        outb    %al, $CAL_WORK_PORT
        cal_entered
        cal_keep
        cal_next

.Lcal_msr:
        cal_step CAL_MEASURED
1:      incq    %r10
        cal_work
        movl    $CAL_TSC_ADJUST, %ecx
        cal_leaving
        rdmsr
        cal_entered
        cal_keep
        cal_next

        // The interrupt's handler runs first after the VM entry, so it takes the stamp and appends the round trip.
.Lcal_hlt:
        cal_timer_on
1:      incq    %r10
        cal_arm
        movl    %ebx, %esi
        cal_work
        cal_step CAL_MEASURED
        cal_leaving
2:      sti
.Lcal_halt:
        hlt
        cli
        cmpl    %ebx, %esi
        je      2b
        addq    $4, %r13
        cal_next

        // Takes stamps in a loop, because the exit may come at any moment.
.Lcal_tsc_deadline:
        cal_timer_on
1:      incq    %r10
        cal_arm
        movl    %ebx, %esi
        cal_work
        cal_step CAL_MEASURED
        cal_leaving
        sti
2:      cal_leaving
        cmpl    %ebx, %esi
        je      2b
        cli
        addq    $4, %r13
        cal_next

        // User space injects an interrupt and an NMI at each OUT.
.Lcal_immediate:
        cal_step CAL_MEASURED
        sti
1:      incq    %r10
        outb    %al, $CAL_WORK_PORT
        cal_next

        // Causes execution-control writes, as any guest can: KVM lets the guest use its debug registers after the first access and
        // intercepts them again from the next exit on. So a write follows the first CPUID, and none follows the others.
.Lcal_debug:
1:      incq    %r10
        cal_step CAL_DEBUG
        cal_leaving
        movq    %dr0, %rax
        cal_entered
        cal_work
        cal_cpuid CAL_AFTER
        cal_work
        cal_cpuid CAL_AFTER + 1
        cal_work
        cal_cpuid CAL_AFTER + 2
        cal_next

        // Under the hard policy, arming and cancelling a timer each write the pin controls.
.Lcal_toggle:
        cal_timer_on
1:      incq    %r10
        cal_step CAL_ARM
        cal_work
        movl    $CAL_TSC_DEADLINE, %ecx
        cal_leaving
        addl    CAL_FAR(%rbp), %eax
        adcl    CAL_FAR + 4(%rbp), %edx
        wrmsr
        cal_entered
        cal_keep
        cal_work
        cal_cpuid CAL_AFTER
        cal_step CAL_CANCEL
        cal_work
        movl    $CAL_TSC_DEADLINE, %ecx
        cal_leaving
        xorl    %eax, %eax
        xorl    %edx, %edx
        wrmsr
        cal_entered
        cal_keep
        cal_work
        cal_cpuid CAL_AFTER + 1
        cal_next

.Lcal_end:
        cli
        xorl    %r11d, %r11d
        rdtsc
        movl    %eax, CAL_LAST_TSC(%rbp)
        movl    %edx, CAL_LAST_TSC + 4(%rbp)
        movl    %r10d, CAL_DONE(%rbp)
        outb    %al, $CAL_END_PORT
3:      hlt
        jmp     3b

        // Lists 0 if the timer came before HLT, because there was no exit. If an exit falls between STI and HLT, QEMU's emulation of
        // SVM loses the interrupt shadow of STI, and HLT would wait for ever, so the handler steps over it.
.Lcal_on_timer:
        cal_entered
        subl    %r9d, %eax
        movl    %eax, (%r13)
        xorl    %r11d, %r11d
        incl    %ebx
        cmpq    $CAL_LOAD + (.Lcal_halt - vmentry_calibration_start), (%rsp)
        jne     1f
        incq    (%rsp)
        movl    $0, (%r13)
1:      cal_wrmsr CAL_X2APIC_EOI, 0
        iretq

.Lcal_on_nothing:
        iretq

        // In the order of calibration::Program.
        .balign 8
.Lcal_programs:
        .long   CAL_LOAD + (.Lcal_cpuid - vmentry_calibration_start)
        .long   CAL_LOAD + (.Lcal_vmcall - vmentry_calibration_start)
        .long   CAL_LOAD + (.Lcal_vmmcall - vmentry_calibration_start)
        .long   CAL_LOAD + (.Lcal_out - vmentry_calibration_start)
        .long   CAL_LOAD + (.Lcal_msr - vmentry_calibration_start)
        .long   CAL_LOAD + (.Lcal_hlt - vmentry_calibration_start)
        .long   CAL_LOAD + (.Lcal_tsc_deadline - vmentry_calibration_start)
        .long   CAL_LOAD + (.Lcal_immediate - vmentry_calibration_start)
        .long   CAL_LOAD + (.Lcal_debug - vmentry_calibration_start)
        .long   CAL_LOAD + (.Lcal_toggle - vmentry_calibration_start)

        // Null, 64-bit code, data.
        .balign 8
        .globl vmentry_calibration_gdt
vmentry_calibration_gdt:
        .quad   0
        .quad   0x00af9b000000ffff
        .quad   0x00cf93000000ffff

        // A vector without a gate ends the guest in a triple fault, which user space reports with the RIP.
        .macro  cal_gate handler
        .short  CAL_LOAD + (\handler - vmentry_calibration_start)
        .short  CAL_CODE_SELECTOR
        .short  0x8e00
        .short  0                               // LOAD and the image are below 64 KiB
        .quad   0
        .endm

        .balign 8
        .globl vmentry_calibration_idt
vmentry_calibration_idt:
        .skip   2 * 16
        cal_gate .Lcal_on_nothing
        .skip   (CAL_TIMER_VECTOR - 3) * 16
        cal_gate .Lcal_on_timer
        cal_gate .Lcal_on_nothing
        .skip   (0xff - (CAL_TIMER_VECTOR + 2)) * 16
        cal_gate .Lcal_on_nothing

        .globl vmentry_calibration_end
vmentry_calibration_end:
        .irp name, entered, leaving, keep, step, work, next, wrmsr, timer_on, arm, cpuid, gate
        .purgem cal_\name
        .endr
        .popsection
