# Completion of vmentry's command lines in bash. The program itself reads the line, as bash splits and quotes it, and answers with what is
# to replace the text behind the last break, a reply per line.
_vmentry() {
    mapfile -t COMPREPLY < <(COMPLETE=bash "COMPLETER" -- "${COMP_LINE:0:COMP_POINT}" "$COMP_WORDBREAKS" 2> /dev/null)
    # A folder, a list and the name before a value go on.
    if [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *[=/:,] ]]; then
        compopt -o nospace 2> /dev/null
    fi
}
# Before bash 4.4, replies are sorted.
complete -o nosort -F _vmentry BIN 2> /dev/null || complete -F _vmentry BIN
