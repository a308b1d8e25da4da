"""The proof campaign (`make prove`): each Addition exactly once, under kills, overlaps, stops and faulty answers.

report.py    what a part is given (Config), what it found (Figures), the table, and the list of parts (`@part`)
worlds.py    small worlds with a planned run, prepared once and copied for each trial
checker.py   the judge: reads what AppXite wants and what ConnectWise holds, did and invoiced; never our tables
trial.py     one copy of a world: workers that are killed, stopped or overlap, the recovery, the verdict
worker.py    the process that runs a worker and kills or stops it at a chosen line
controls.py  the negative controls: delivery protocols that are known to bill twice

Every other module is a part of the campaign: it registers one function, Config → Figures, with `@part`.
"""
