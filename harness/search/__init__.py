"""Search: Optuna tries combinations of changes, and says which change is the biggest single improvement.

The only package that imports optuna. It is another producer of cells on the same way of the data as a plan: it never
trains by itself, and what it finds is exploratory until fresh seeds have confirmed it.

    choices    samplers and pruners by name
    space      combinations of changes as parameters with a few choices
    locks      who is alive, who may go first
    storage    Optuna's storage made ready; the study in it
    sampling   what to try next
    pruning    giving up early
    trials     the queue that processes share
    loop       trials become cells, results become values
    answer     effects three ways, best and simplest combination
    sentences  the answer in words
    dashboard  the note and the figures of the Optuna dashboard
    run        `search`, all of it together

Import from the modules: importing this package brings in nothing.
"""
