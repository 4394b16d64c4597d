# Master boot record of the lab's disk: switches to flat 32-bit mode, reads the extents in its table by ATA PIO and
# enters the kernel through PVH. It avoids a boot loader and BIOS disk calls, which take a minute in an emulator.
# Assembled into xtask (xtask/src/lab/disk.rs), so every absolute address is written as 0x7c00 + (label - .Lstart).

        .code16
.Lstart:
        cli
        xorw    %ax, %ax
        movw    %ax, %ds
        inb     $0x92, %al                      # open the A20 gate, without the reset bit
        orb     $2, %al
        andb    $0xfe, %al
        outb    %al, $0x92
        lgdtl   (0x7c00 + (.Lgdt_pointer - .Lstart))
        movl    %cr0, %eax
        orb     $1, %al
        movl    %eax, %cr0
        ljmpl   $8, $(0x7c00 + (.Lprotected - .Lstart))

        .code32
.Lprotected:
        movw    $16, %ax
        movw    %ax, %ds
        movw    %ax, %es
        movw    %ax, %ss
        movl    $0x7c00, %esp
        cld
        movb    $2, %al                         # no interrupts from the drive
        movw    $0x3f6, %dx
        outb    %al, %dx
        movl    $(0x7c00 + (.Lextents - .Lstart)), %esi

.Lextent:
        movl    (%esi), %edi                    # destination; 0 ends the table
        testl   %edi, %edi
        jz      .Lenter
        movl    4(%esi), %ebx                   # first sector
        movl    8(%esi), %ebp                   # number of sectors, a multiple of 128
.Lcommand:
        movw    $0x1f7, %dx
1:      inb     %dx, %al
        testb   $0x80, %al
        jnz     1b
        movw    $0x1f2, %dx
        movb    $128, %al
        outb    %al, %dx
        movl    %ebx, %eax
        incw    %dx
        outb    %al, %dx
        shrl    $8, %eax
        incw    %dx
        outb    %al, %dx
        shrl    $8, %eax
        incw    %dx
        outb    %al, %dx
        shrl    $8, %eax
        andb    $0x0f, %al
        orb     $0xe0, %al                      # master drive, linear addressing
        incw    %dx
        outb    %al, %dx
        movb    $0x20, %al                      # READ SECTORS
        incw    %dx
        outb    %al, %dx
        pushl   %ebx
        movl    $128, %ebx
.Lsector:
        movw    $0x1f7, %dx
1:      inb     %dx, %al
        testb   $0x80, %al
        jnz     1b
        testb   $0x08, %al
        jz      1b
        movw    $0x1f0, %dx
        movl    $256, %ecx
        rep insw
        decl    %ebx
        jnz     .Lsector
        popl    %ebx
        addl    $128, %ebx
        subl    $128, %ebp
        ja      .Lcommand
        addl    $12, %esi
        jmp     .Lextent

.Lenter:
        movl    (0x7c00 + (.Lstart_info - .Lstart)), %ebx
        jmp     *(0x7c00 + (.Lentry - .Lstart))

        .balign 8
.Lgdt:  .quad   0
        .quad   0x00cf9b000000ffff
        .quad   0x00cf93000000ffff
.Lgdt_pointer:
        .word   23
        .long   0x7c00 + (.Lgdt - .Lstart)

        .org    0x178                           # xtask fills in the rest
.Lentry:
        .long   0
.Lstart_info:
        .long   0
.Lextents:
        .fill   16, 4, 0
        .org    510
        .word   0xaa55
        .code64
