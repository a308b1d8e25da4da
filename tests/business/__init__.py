"""The simulated business: what customers are invoiced, month after month, against rules worked out a second time.

program     a seed as a list of events: 15 months of customers, people, nights and agreement invoicing
seller      AppXite's half: what customers buy and change becomes rows and invoices in the sandbox
dates       cycles and months, in Python of its own
books       the oracle: what must become of each line, from AppXite, ConnectWise and people's decisions alone
player      plays a program with the real pipeline and compares with the books after each run and each invoice
shrink      the smallest program that still fails
mutations   wrong decisions that must be found
report      what was covered, as a table
__main__    `make business`
"""
