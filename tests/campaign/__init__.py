"""The proof campaign (`make prove`): each Addition exactly once, under kills, overlaps, stops and faulty answers.

report.py    what a part is given (Config), what it found (Figures), the table, and the list of parts (`@part`)
worlds.py    small worlds with a planned run, prepared once and copied for each trial
checker.py   the judge: reads what AppXite wants and what ConnectWise holds, did and invoiced; never our tables
trial.py     one copy of a world: workers that are killed, stopped or overlap, the recovery, the verdict
worker.py    the process that runs a worker and kills or stops it at a chosen line
steps.py     the tasks of a run, one after the other on one connection
tasks.py     the same as Airflow runs them: each on a connection of its own, each tried again
controls.py  the negative controls: delivery protocols that are known to bill twice
answers.py   faulty answers of ConnectWise
postgres_proxy.py  loses the acknowledgement of one round trip to the billing database

Every other module is a part of the campaign: it registers one function, Config → Figures, with `@part`.
"""
