
# What only the controller knows: numbers of tasks, names of projects, executors and agents. Flags are offered once a
# dash is typed.
_sculpt_known() {
    sculpt known "$1" 2>/dev/null
}

_sculpt_words() {
    local cur="${COMP_WORDS[COMP_CWORD]}" prev="${COMP_WORDS[COMP_CWORD-1]}" verb="" word="" index
    for ((index = 1; index < COMP_CWORD; index++)); do
        if [[ ${COMP_WORDS[index]} == -- ]]; then
            # The command of `run`: first a program, then whatever the shell offers.
            COMPREPLY=()
            if ((index + 1 == COMP_CWORD)); then
                mapfile -t COMPREPLY < <(compgen -c -- "$cur")
            fi
            return
        fi
        case ${COMP_WORDS[index]} in
            -*) ;;
            *) [[ ${COMP_WORDS[index-1]} == -o || ${COMP_WORDS[index-1]} == --output ]] || verb+=" ${COMP_WORDS[index]}" ;;
        esac
    done

    local words=""
    case $prev in
        --agent | --default-agent)
            words=$(_sculpt_known agents) ;;
        --project) words=$(_sculpt_known projects) ;;
    esac
    if [[ -z $words ]]; then
        _sculpt "$@"
        [[ $cur == -* ]] && return
        for word in "${COMPREPLY[@]}"; do
            [[ $word == -* ]] || words+=" $word"
        done
        case $verb in
            " show"* | " wait"* | " logs"* | " replay"* | " attach"* | " pair"* | " connect"* | " ssh"* | " port-forward"* | " tunnel"* | " stop"* | " retry"* | " diff"* | " fetch"*)
                [[ $prev == -o || $prev == --* ]] || words+=" $(_sculpt_known tasks)" ;;
            " project rm") words+=" $(_sculpt_known projects)" ;;
            " executor show" | " executor adopt" | " executor gc") words+=" $(_sculpt_known executors)" ;;
        esac
    fi
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
}

complete -F _sculpt_words -o bashdefault -o default sculpt
