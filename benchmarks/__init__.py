"""Speed against peers, side by side in one run; `python -m benchmarks` is the one entrance, README.md the manual.

    __main__.py           the command: what to measure, how large
    figures.py            the figures by name; training_figures.py, command_figures.py, core_overhead_figure.py,
                          task4.py and accuracy_figure.py make them: which contenders meet, which ratios are formed,
                          which aims they have
    sample.py             rounds, medians, ratios; pure arithmetic
    processes.py          fresh processes with a synchronised start
    workload.py           how much is measured; synthetic images; the settings of a variant
    peer.py               the network and the protocol as most people write them
    floor.py, textbook.py, lightning_trainer.py, cells.py     the contenders
    commands.py, growth.py, accuracy.py                       start-up, many cells, no accuracy lost
    store_figure.py       commands on 20,000 cells of 300 study runs
    chaos/                the reliability trial: what is killed and damaged ends with the table of an untroubled run;
                          storms on a Ray cluster of this machine
    core_overhead.py      a training that does nothing: what carries it
    simulated.py, scale_figure.py     one driver of very many cells
    cluster_overhead.py, cluster_figure.py   Ray beside processes
    bare.py               a cell's run without a store
    machine.py, report.py  what was measured on; the table and the JSON file

Not a part of the installed package and of no test's timing: `tests/test_benchmarks.py` runs it in tiny sizes only.
"""
