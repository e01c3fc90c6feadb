"""Where the time of a fit goes, and how near each part is to what the machine allows.

``python -m bench.breakdown run`` measures, ``table`` and ``picture`` show. A module each for the stopwatch, what it is
tied to in the package, the network alone, the floors, one fit in a process of its own, the tables and the picture.
(No module of bench may be called profile: bench is on the path of its own tests, and cProfile imports that name.)
"""
