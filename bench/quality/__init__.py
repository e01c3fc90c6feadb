"""What maps of rows never seen are worth: methods and peers on real data, under fixed protocols.

``python -m bench.quality run`` fits one method to one set and adds a row to a table, ``python -m bench.quality table``
shows the tables. A module each for the data and its splits, the methods, the judging, the tables and the machine.
"""
