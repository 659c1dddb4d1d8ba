# Makes phala-gateway.yaml(5) from conf/gateway.example.yaml: every key with its value there, and what comments say.
# usage: awk -f yaml-page.awk gateway.example.yaml

function roff(text) {
    gsub(/\\/, "\\e", text)
    gsub(/-/, "\\-", text)
    return text
}

# Lines of at most 78 bytes, none of which is taken for a request.
function print_text(text,    words, count, i, line) {
    count = split(roff(text), words, " ")
    line = ""
    for (i = 1; i <= count; i++) {
        if (line != "" && length(line) + length(words[i]) > 77) {
            print line
            line = ""
        }
        if (line == "" && words[i] ~ /^[.']/)
            words[i] = "\\&" words[i]
        line = line (line == "" ? "" : " ") words[i]
    }
    if (line != "")
        print line
}

function path_to(depth,    i, path) {
    for (i = 1; i <= depth; i++)
        path = path (i > 1 ? "." : "") names[i] (i < depth && is_list[i] ? "[]" : "")
    return path
}

BEGIN {
    print ".TH PHALA\\-GATEWAY.YAML 5 2026-11-26 \"Phala Gateway\" \"File Formats\""
    print ".SH NAME\nphala\\-gateway.yaml \\- configuration of the Phala Gateway"
    print ".SH DESCRIPTION"
    in_header = 1
}

/^#/ && in_header {
    sub(/^# ?/, "")
    header = header (header == "" ? "" : " ") $0
    if ($0 == "") {
        print_text(header)
        print ".PP"
        header = ""
    }
    next
}

in_header {
    print_text(header)
    print ".SH KEYS"
    in_header = 0
}

/^ *$/ {
    next
}

/^ *#/ && !/^ *# *[a-z_0-9]+:( |$)/ {
    sub(/^ *(# *)+/, "")
    text = text (text == "" ? "" : " ") $0
    next
}

/^ *(# *)?(- )?[a-z_0-9]+:/ {
    if ($0 ~ /^ *#/)
        sub(/# ?/, "")
    item = $0 ~ /^ *- /
    match($0, /[a-z]/)
    indent = RSTART
    while (depth > 0 && indents[depth] >= indent)
        depth--
    if (item && depth > 0)
        is_list[depth] = 1
    line = substr($0, RSTART)
    name = line
    sub(/:.*/, "", name)
    value = substr(line, length(name) + 2)
    comment = ""
    if (match(value, /(^|[ ]+)# /)) {
        comment = substr(value, RSTART + RLENGTH)
        value = substr(value, 1, RSTART - 1)
    }
    sub(/^ +/, "", value)
    depth++
    names[depth] = name
    indents[depth] = indent
    is_list[depth] = 0
    text = text (text == "" || comment == "" ? "" : " ") comment
    if (text == "")
        text = value == "" ? "See its keys below." : "See above."
    path = path_to(depth)
    if (!(path in seen) || text != "See above.") {
        print ".TP"
        print "\\fB" roff(path) "\\fR" (value == "" ? "" : " \\fI" roff(value) "\\fR")
        print_text(text)
    }
    seen[path] = 1
    text = ""
    next
}

END {
    print ".SH SEE ALSO\n.BR phala\\-gateway (8),\n.BR gatewayctl (1)"
}
