package cli

const filesHelp = `How a secret is handed over as a file. NAME_FILE holds its path; NAME is not set.

  --file TLS_KEY               sealed in memory: /proc/self/fd/N, for the program
                               itself and what inherits its descriptors
  --file TLS_KEY=/run/app/key  at that path until the end, on a memory file system
                               unless --allow-disk; a change replaces it in one
                               step
  --file TLS_KEY:base64        the value is the file's content in base64
  --file TLS_KEY=/run/app/key,mode=0440,owner=root:ssl-cert
                               who may read it; otherwise mode 0400 and vaultexec's
                               own user. Another owner needs root.

  --file-set /run/app/tls      makes that folder, and replaces all --file paths in
                               it together, such as a certificate and its key

The folder of a file or of a set must exist, and only root, vaultexec's user and
the owner of the file may be able to change it or any folder above it. vaultexec
replaces only files that an earlier run made. At the end it removes files and
sets; after a SIGKILL they stay until the next start replaces them. Two runs must
not use the same path.

With --watch a change restarts the command. --on-change signal:HUP instead replaces
the files, and then sends that signal.

Each --file is replaced by itself: a program that reads two of them at any time
may find a new one and an old one. The folder of a set is a link to one edition of
all its files, and one rename makes the next edition current:

  - a program that opens the folder once (cd, open with O_DIRECTORY), and the files
    from there, has one edition; the previous one stays for ten seconds for that
  - a program that opens two files by their full paths may have one of each if the
    change comes in between, and has to read again; after the signal both are new

A list, such as the ca_chain of a certificate, is JSON unless the filter lines
ends each item with a line break (see vaultexec help references).
`
