"""A study: recipes x settings x seeds (x folds) run from one YAML, and the tables made of what they left.

    python -m sv_ssl.study FILE.yaml

grid_file.py               the YAML: its keys, and what is refused in it
grid.py                    systems, seeds, folds, and the runs that follow from them
command_lines.py           the command line of each run
runner.py                  run them side by side, resume, keep what each of them left
run_files.py               the files of a run, its JSON and its scores: written and read
compare.py                 intervals and paired tests over seeds, speakers and clips
speakers_table.py          rows of the tables of speakers
clips_table.py             rows of the tables of labelled clips
tables.py, figures.py      the page and its pictures, from the JSONs
hard_pairs.py              who is mistaken for whom by one system
"""
