"""The side of the sandbox that runs in a bare interpreter, away from the harness.

Three processes, each forked from the one before; only the last ever runs a line of the program:

    server    one program after another, a fresh pair of children for each; starts and buries them
    checker   runs the trusted checks; calls the program's functions over a pipe and compares plain values
    program   confined; executes the source, then answers calls

These modules import nothing but the standard library and each other, relatively: the server runs with `-I -S`, where
neither the project nor its dependencies can be imported. They use no thread, since they fork.
"""
