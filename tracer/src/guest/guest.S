// The guest's machine code: 32-bit flat protected mode, loaded at LOAD and entered at its first byte. Only hypervisors use
// paging, because VMX demands it; it maps each address to itself.
//
// On entry EBP points to the vCPU's parameter block (the offsets below) and ESP to the end of its page. EBP must not change,
// because the interrupt handlers count in the block that it points to. image.rs replaces the words in braces.

        .pushsection .rodata.vmentry_guest, "a", @progbits
        .code32

        .set LOAD, {load}
        .set CODE_SELECTOR, {code_selector}
        .set WORK_PORT, {work_port}
        .set WORK_ADDRESS, {work_address}
        .set END_PORT, {end_port}

        // The parameter block: read by the guest ...
        .set PROGRAM, {program}
        .set COUNT, {count}
        .set DELTA, {delta}
        .set ROUND_TRIPS, {round_trips}
        .set VMXON_REGION, {vmxon_region}
        .set VMCS_REGION, {vmcs_region}
        .set FIELD_COUNT, {field_count}
        .set FIELDS, {fields}
        .set FAR, {far}
        .set WAIT, {wait}
        // ... and written by it, as DELTA is where ROUND_TRIPS is not 0.
        .set ITERATIONS, {iterations}
        .set INTERRUPTS, {interrupts}
        .set NMIS, {nmis}
        .set FIRST_TSC, {first_tsc}
        .set LAST_TSC, {last_tsc}
        .set STAGE, {stage}
        .set INSTRUCTION_ERROR, {instruction_error}
        .set EXIT_REASON, {exit_reason}
        .set ARMED_TSC, {armed_tsc}
        .set NOTICED_TSC, {noticed_tsc}

        .set APIC_BASE, 0xfee00000
        .set APIC_EOI, APIC_BASE + 0xb0
        .set APIC_SPURIOUS, APIC_BASE + 0xf0
        .set APIC_INTERRUPT_COMMAND, APIC_BASE + 0x300
        .set APIC_LVT_TIMER, APIC_BASE + 0x320
        .set APIC_INITIAL_COUNT, APIC_BASE + 0x380
        .set APIC_DIVIDE, APIC_BASE + 0x3e0
        .set APIC_ENABLE, 0x1ff                 // software enable, spurious vector 0xff
        .set TO_SELF, 0x40000                   // interrupt command: fixed delivery to the sender
        .set TSC_DEADLINE_MODE, 0x40000
        .set DIVIDE_BY_1, 0xb
        .set MSR_TSC_DEADLINE, 0x6e0
        .set CR4_MCE, 1 << 6
        .set CR4_OSXSAVE, 1 << 18
        .set XCR0_X87, 1
        .set VECTOR_WITHOUT_GATE, 0x20
        .set KVM_HC_VAPIC_POLL_IRQ, 1           // the hypercall that does nothing and succeeds
        .set TIMER_VECTOR, {timer_vector}
        .set MOST_CYCLES, {most_cycles}

        // Encodings of VMCS fields, and the basic exit reason that L1 expects.
        .set FIELD_INSTRUCTION_ERROR, {field_instruction_error}
        .set FIELD_EXIT_REASON, {field_exit_reason}
        .set EXIT_REASON_VMCALL, 18

        .globl vmentry_guest_start
vmentry_guest_start:
        rdtsc
        movl    %eax, FIRST_TSC(%ebp)
        movl    %edx, FIRST_TSC + 4(%ebp)
        movl    COUNT(%ebp), %esi
        movl    PROGRAM(%ebp), %eax
        jmp     *PROGRAMS(, %eax, 4)

        // Ends one iteration: counts it and jumps back to local label 1 until COUNT iterations are done.
        .macro  vmentry_next
        incl    ITERATIONS(%ebp)
        decl    %esi
        jnz     1b
        jmp     .Lvmentry_end
        .endm

        // Raises DELTA to ROUND_TRIPS times the cycles since the TSC was EDI, at most to MOST_CYCLES.
        .macro  vmentry_raise_delta
        rdtsc
        subl    %edi, %eax
        mull    ROUND_TRIPS(%ebp)
        testl   %edx, %edx
        jnz     8f
        cmpl    $MOST_CYCLES, %eax
        jbe     9f
8:      movl    $MOST_CYCLES, %eax
9:      cmpl    %eax, DELTA(%ebp)
        jae     7f
        movl    %eax, DELTA(%ebp)
7:
        .endm

        // Writes the TSC plus DELTA to the deadline register. The next timer is as far ahead as this exit shows to be necessary.
        .macro  vmentry_arm_deadline
        rdtsc
        movl    %eax, %edi
        addl    DELTA(%ebp), %eax
        adcl    $0, %edx
        movl    $MSR_TSC_DEADLINE, %ecx
        wrmsr
        vmentry_raise_delta
        .endm

        // Enables the TSC-deadline timer. The first access to the local APIC exits, as arming the timer will.
        .macro  vmentry_deadline_timer_on
        rdtsc
        movl    %eax, %edi
        movl    $APIC_ENABLE, APIC_SPURIOUS
        vmentry_raise_delta
        movl    $TSC_DEADLINE_MODE + TIMER_VECTOR, APIC_LVT_TIMER
        .endm

.Lvmentry_out:
1:      outb    %al, $WORK_PORT
        vmentry_next

.Lvmentry_cpuid:
1:      xorl    %eax, %eax
        xorl    %ecx, %ecx
        cpuid
        vmentry_next

        // A failed hypercall ends the run, and the host finds too few ITERATIONS.
.Lvmentry_vmcall:
1:      movl    $KVM_HC_VAPIC_POLL_IRQ, %eax
        vmcall
        testl   %eax, %eax
        jnz     .Lvmentry_end
        vmentry_next

.Lvmentry_vmmcall:
1:      movl    $KVM_HC_VAPIC_POLL_IRQ, %eax
        vmmcall
        testl   %eax, %eax
        jnz     .Lvmentry_end
        vmentry_next

        // The busy waits have no PAUSE, because pause-loop exiting would add exits.
.Lvmentry_tsc_deadline:
        vmentry_deadline_timer_on
        sti
1:      movl    INTERRUPTS(%ebp), %ebx
        vmentry_arm_deadline
2:      cmpl    %ebx, INTERRUPTS(%ebp)
        je      2b
        vmentry_next

.Lvmentry_oneshot:
        movl    $APIC_ENABLE, APIC_SPURIOUS
        movl    $TIMER_VECTOR, APIC_LVT_TIMER
        movl    $DIVIDE_BY_1, APIC_DIVIDE
        sti
1:      movl    INTERRUPTS(%ebp), %ebx
        movl    DELTA(%ebp), %eax
        movl    %eax, APIC_INITIAL_COUNT
2:      cmpl    %ebx, INTERRUPTS(%ebp)
        je      2b
        vmentry_next

        // STI blocks interrupts for one more instruction, so none should be taken between it and HLT.
.Lvmentry_hlt:
        vmentry_deadline_timer_on
1:      movl    INTERRUPTS(%ebp), %ebx
        vmentry_arm_deadline
2:      sti
.Lvmentry_halt:
        hlt
        cli
        cmpl    %ebx, INTERRUPTS(%ebp)
        je      2b
        vmentry_next

        // Arms a timer FAR cycles ahead, waits for its interrupt for WAIT cycles at most, and disarms it. It never halts, because
        // KVM would hand the timer of a halted vCPU to the host's.
.Lvmentry_far_timer:
        vmentry_deadline_timer_on
        sti
1:      movl    INTERRUPTS(%ebp), %ebx
        rdtsc
        movl    %eax, ARMED_TSC(%ebp)
        movl    %edx, ARMED_TSC + 4(%ebp)
        movl    %eax, %edi
        addl    FAR(%ebp), %eax
        adcl    FAR + 4(%ebp), %edx
        movl    $MSR_TSC_DEADLINE, %ecx
        wrmsr
2:      cmpl    %ebx, INTERRUPTS(%ebp)
        jne     3f
        rdtsc
        subl    %edi, %eax
        cmpl    WAIT(%ebp), %eax
        jb      2b
3:      rdtsc
        movl    %eax, NOTICED_TSC(%ebp)
        movl    %edx, NOTICED_TSC + 4(%ebp)
        xorl    %eax, %eax
        xorl    %edx, %edx
        wrmsr
        vmentry_next

.Lvmentry_spin:
1:      movl    DELTA(%ebp), %ecx
2:      loop    2b
        vmentry_next

        // User space injects an interrupt and an NMI at each OUT.
.Lvmentry_immediate:
        sti
1:      outb    %al, $WORK_PORT
        vmentry_next

        // The interrupt is pending before STI, so that KVM has to wait for the guest to take interrupts.
.Lvmentry_irq_window:
        movl    $APIC_ENABLE, APIC_SPURIOUS
1:      movl    INTERRUPTS(%ebp), %ebx
        movl    $TO_SELF + TIMER_VECTOR, APIC_INTERRUPT_COMMAND
        sti
2:      cmpl    %ebx, INTERRUPTS(%ebp)
        je      2b
        cli
        vmentry_next

.Lvmentry_pause:
1:      movl    DELTA(%ebp), %ecx
2:      pause
        loop    2b
        vmentry_next

.Lvmentry_mmio:
1:      movl    %eax, WORK_ADDRESS
        vmentry_next

        // KVM owns CR4.MCE, and each write changes it.
.Lvmentry_cr4:
        movl    %cr4, %eax
1:      xorl    $CR4_MCE, %eax
        movl    %eax, %cr4
        vmentry_next

.Lvmentry_xsetbv:
        movl    %cr4, %eax
        orl     $CR4_OSXSAVE, %eax
        movl    %eax, %cr4
1:      movl    $XCR0_X87, %eax
        xorl    %edx, %edx
        xorl    %ecx, %ecx
        xsetbv
        vmentry_next

        // After an exit by a debug register KVM gives the guest all of them until the next exit, hence the CPUID.
.Lvmentry_dr0:
1:      xorl    %eax, %eax
        movl    %eax, %dr0
        xorl    %ecx, %ecx
        cpuid
        vmentry_next

        // An interrupt without a gate, a general-protection fault without one, a double fault without one. User space starts
        // the vCPU again, with its counts as they are. The TSC may have changed: kvm_amd resets a vCPU that shut down.
.Lvmentry_triple_fault:
        movl    ITERATIONS(%ebp), %eax
        cmpl    COUNT(%ebp), %eax
        je      .Lvmentry_end
        incl    ITERATIONS(%ebp)
        lidt    LOAD + (.Lvmentry_no_idt - vmentry_guest_start)
        int     $VECTOR_WITHOUT_GATE

        // One VMX instruction of L1. Notes its stage first, and ends the run if it fails, which sets CF or ZF.
        .macro  vmentry_vmx stage, instruction:vararg
        movl    $\stage, STAGE(%ebp)
        \instruction
        jbe     .Lvmentry_vmx_failed
        .endm

        // L1, a hypervisor, enters its guest L2 COUNT times. User space has enabled paging and VMX and has prepared the regions
        // and the list of VMCS fields. Interrupts stay disabled in L1 and L2, so the timer's is never taken.
.Lvmentry_nested_armed:
        movl    $APIC_ENABLE, APIC_SPURIOUS
        movl    $TSC_DEADLINE_MODE + TIMER_VECTOR, APIC_LVT_TIMER
        vmentry_arm_deadline
.Lvmentry_nested:
        vmentry_vmx {stage_vmxon}, vmxon VMXON_REGION(%ebp)
        vmentry_vmx {stage_vmclear}, vmclear VMCS_REGION(%ebp)
        vmentry_vmx {stage_vmptrld}, vmptrld VMCS_REGION(%ebp)
        leal    FIELDS(%ebp), %ebx
        movl    FIELD_COUNT(%ebp), %ecx
2:      movl    (%ebx), %eax
        vmentry_vmx {stage_vmwrite}, vmwrite 4(%ebx), %eax
        addl    $8, %ebx
        loop    2b
        // Both instructions fall through only if they fail: after an exit of L2, L1 continues at vmentry_guest_l2_exit.
        vmentry_vmx {stage_vmlaunch}, vmlaunch
1:      vmentry_vmx {stage_vmresume}, vmresume

        // The general registers still have L1's values, because L2 changes none.
        .globl  vmentry_guest_l2_exit
vmentry_guest_l2_exit:
        movl    $FIELD_EXIT_REASON, %eax
        vmentry_vmx {stage_vmread}, vmread %eax, EXIT_REASON(%ebp)
        movl    ${stage_l2_exit}, STAGE(%ebp)
        cmpl    $EXIT_REASON_VMCALL, EXIT_REASON(%ebp)
        jne     .Lvmentry_end
        vmentry_next

        // An exit by VMCALL leaves RIP at the instruction, so each entry executes it again.
        .globl  vmentry_guest_l2
vmentry_guest_l2:
        vmcall

.Lvmentry_vmx_failed:
        jc      .Lvmentry_end                   // no current VMCS, so no error number
        movl    $FIELD_INSTRUCTION_ERROR, %eax
        vmread  %eax, INSTRUCTION_ERROR(%ebp)

.Lvmentry_end:
        cli
        rdtsc
        movl    %eax, LAST_TSC(%ebp)
        movl    %edx, LAST_TSC + 4(%ebp)
        outb    %al, $END_PORT
3:      hlt
        jmp     3b

        // If an exit falls between STI and HLT, QEMU's emulation of SVM loses the interrupt shadow of STI (its VMRUN does not
        // load int_state). The interrupt then comes before HLT, which would wait for ever, so the handler steps over it.
.Lvmentry_on_timer:
        incl    INTERRUPTS(%ebp)
        movl    $0, APIC_EOI
        cmpl    $LOAD + (.Lvmentry_halt - vmentry_guest_start), (%esp)
        jne     1f
        incl    (%esp)
1:      iret

        // User space injects this interrupt without the local APIC, which therefore needs no EOI.
.Lvmentry_on_injected:
        incl    INTERRUPTS(%ebp)
        iret

.Lvmentry_on_nmi:
        incl    NMIS(%ebp)
        iret

.Lvmentry_on_spurious:
        iret

        // In the order of image::Program.
        .balign 8
.Lvmentry_programs:
        .long   LOAD + (.Lvmentry_out - vmentry_guest_start)
        .long   LOAD + (.Lvmentry_cpuid - vmentry_guest_start)
        .long   LOAD + (.Lvmentry_vmcall - vmentry_guest_start)
        .long   LOAD + (.Lvmentry_vmmcall - vmentry_guest_start)
        .long   LOAD + (.Lvmentry_tsc_deadline - vmentry_guest_start)
        .long   LOAD + (.Lvmentry_oneshot - vmentry_guest_start)
        .long   LOAD + (.Lvmentry_hlt - vmentry_guest_start)
        .long   LOAD + (.Lvmentry_spin - vmentry_guest_start)
        .long   LOAD + (.Lvmentry_immediate - vmentry_guest_start)
        .long   LOAD + (.Lvmentry_nested - vmentry_guest_start)
        .long   LOAD + (.Lvmentry_nested_armed - vmentry_guest_start)
        .long   LOAD + (.Lvmentry_irq_window - vmentry_guest_start)
        .long   LOAD + (.Lvmentry_pause - vmentry_guest_start)
        .long   LOAD + (.Lvmentry_mmio - vmentry_guest_start)
        .long   LOAD + (.Lvmentry_cr4 - vmentry_guest_start)
        .long   LOAD + (.Lvmentry_dr0 - vmentry_guest_start)
        .long   LOAD + (.Lvmentry_xsetbv - vmentry_guest_start)
        .long   LOAD + (.Lvmentry_triple_fault - vmentry_guest_start)
        .long   LOAD + (.Lvmentry_far_timer - vmentry_guest_start)
        .set PROGRAMS, LOAD + (.Lvmentry_programs - vmentry_guest_start)

        // Limit 0, so that no vector has a gate.
.Lvmentry_no_idt:
        .short  0
        .long   0

        // Null, flat code, flat data.
        .balign 8
        .globl vmentry_guest_gdt
vmentry_guest_gdt:
        .quad   0
        .quad   0x00cf9b000000ffff
        .quad   0x00cf93000000ffff

        // A vector without a gate ends the guest in a triple fault, which user space reports with the RIP.
        .macro  vmentry_gate handler
        .short  LOAD + (\handler - vmentry_guest_start)
        .short  CODE_SELECTOR
        .short  0x8e00
        .short  0                               // LOAD and the image are below 64 KiB
        .endm

        .balign 8
        .globl vmentry_guest_idt
vmentry_guest_idt:
        .skip   2 * 8
        vmentry_gate .Lvmentry_on_nmi
        .skip   (TIMER_VECTOR - 3) * 8
        vmentry_gate .Lvmentry_on_timer
        vmentry_gate .Lvmentry_on_injected
        .skip   (0xff - (TIMER_VECTOR + 2)) * 8
        vmentry_gate .Lvmentry_on_spurious

        .globl vmentry_guest_end
vmentry_guest_end:
        .purgem vmentry_next
        .purgem vmentry_arm_deadline
        .purgem vmentry_raise_delta
        .purgem vmentry_deadline_timer_on
        .purgem vmentry_vmx
        .purgem vmentry_gate
        .code64
        .popsection
