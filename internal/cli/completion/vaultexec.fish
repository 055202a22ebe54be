# fish completion for vaultexec. vaultexec itself knows what may follow; what stands after the first -- is another program's.

function __vaultexec_complete
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    set -l program $words[1]
    set -e words[1]

    if set -l cut (contains -i -- -- $words)
        set -l line (string escape -- $words[(math $cut + 1)..-1] 2>/dev/null)
        complete -C (string join ' ' -- $line $current)
        return
    end

    command -q $program; or return
    set -l current (string unescape -- $current; or string replace -r '^["\']' '' -- $current)
    set -l answer (command $program __complete $words "$current" </dev/null 2>/dev/null)
    set -l prefix (string match -r '.*=' -- $current)
    set -l value (string replace -r '.*=' '' -- $current)
    switch "$answer[1]"
        case words
            string join \n -- $answer[2..-1]
        case files
            for file in (__fish_complete_path $value)
                echo -- "$prefix$file"
            end
        case dirs
            for dir in (__fish_complete_directories $value '')
                echo -- "$prefix$dir"
            end
        case commands
            for name in (__fish_complete_command)
                echo -- "$prefix$name"
            end
    end
end

complete -c vaultexec -f -a '(__vaultexec_complete)'
