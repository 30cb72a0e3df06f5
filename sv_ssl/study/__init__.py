"""A study: recipes x seeds run from one YAML, and the tables made of what they left. `python -m sv_ssl.study FILE.yaml`

grid.py      the YAML: systems, seeds, and the command line of each run
runner.py    run them side by side, resume, keep what each of them found
kept.py      the two files of a run, its JSON and its scores: written and read
compare.py   intervals and paired tests over speakers and seeds
tables.py    README.md and its pictures, from the JSONs
errors.py    who is mistaken for whom by one system
"""
