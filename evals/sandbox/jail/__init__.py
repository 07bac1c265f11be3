"""The side of the sandbox that runs in a bare interpreter, away from the harness.

    server         reads programs, runs their trusted checks: calls the program's functions over
                   a socket and compares plain values
    └─ nursery     forks a process for each program and buries it; sees neither it nor its checks
       └─ program  confined; executes the source, then answers calls; nobody else runs a line of it

So nothing of the checks (whose text holds the expected answers) is in the memory a program can
search.

These modules import nothing but the standard library and each other, relatively: the server runs
where neither the project nor its dependencies can be imported. They use no thread, since they fork.
"""
