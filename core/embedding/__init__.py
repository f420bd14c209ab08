"""gocker inside another program: `gocker.run`, `gocker.arun`, `gocker.Container`.

    the program                                    the attendant: a thread of it, or a process of the fork server
       | Container: pipes, a socket pair              |
       |---- request (what `gocker run` would get), the far ends ---->|
       |                                              | plans and runs the engine, one container
       |<--- {"started": ...} ------------------------| the program in the container runs
       |---- signal numbers, a byte each ------------>| passed on
       |<--- {"ended": ...} or {"error": ...} --------| and nothing is left of the container
       |---- end of file: killed, or all is given up ->| kills and removes it

The program does not fork itself and handles no signal. What carries an attendant: gocker.embedding.carrier.
"""
