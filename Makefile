# What to type: `make help` lists it. PYTHON names another Python (3.11 or newer), PORT another port for the app.
.DEFAULT_GOAL := help
.PHONY: help app test notebook prepare model small lock hooks env dev faces clean
RUN := .venv-dev/bin/python
TRAIN = $(RUN) -m pip install -q -c constraints.txt -e '.[distill]' && $(RUN) tools/train_default.py "$(FACES)"

help:  ## list what can be made
	@sed -n 's/^\([a-z]*\):.*## /  make \1|/p' Makefile | while IFS='|' read -r a b; do printf '%-18s %s\n' "$$a" "$$b"; done

app: env  ## serve the app on this computer and print its address (PORT=8866)
	@exec .venv/bin/gender_classifier app $(if $(PORT),--port $(PORT))

test: dev  ## run every check and test (FLAGS="slow cuda" runs those cells too)
	@$(RUN) tools/test.py $(FLAGS)

notebook: dev  ## open the notebooks in Jupyter
	@cd nbs && exec ../$(RUN) -m jupyterlab --ContentsManager.pre_save_hook=nbdev.clean.clean_jupyter

prepare: dev  ## clean the notebooks, write the library and the README from them
	@$(RUN) -c "from nbdev.clean import nbdev_clean; nbdev_clean('nbs'); nbdev_clean('app')"
	@$(RUN) -c "from nbdev.doclinks import nbdev_export; nbdev_export()"
	@$(RUN) tools/readme.py

model: faces dev  ## train the larger model in models/ from the four folders of pictures in FACES, in minutes on a GPU, hours without; goes on if it was cut off
	@$(TRAIN)

small: faces dev  ## train the small model in models/ from FACES and the larger one
	@$(TRAIN) --arch resnet18_small --pupil-of models/gender_resnet18 --out models/gender_small

lock: dev  ## write constraints.txt from the environment of the tests
	@$(RUN) tools/lock.py > constraints.new && mv constraints.new constraints.txt

clean:  ## take away the environments and what builds left
	rm -rf .venv .venv-dev build dist *.egg-info .pytest_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

env:
	@tools/mkenv .venv examples

dev: hooks
	@tools/mkenv .venv-dev dev

faces:
	@test -n "$(FACES)" || { echo 'Say where the pictures are: FACES=/a/folder, see tools/train_default.py'; exit 2; }

hooks:
	@tools/hooks
