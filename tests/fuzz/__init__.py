"""Fuzzing of everything that reads what strangers send.

``targets`` says for each parser what must hold for any input. ``seeds`` are inputs to start from, and the inputs that
have found something: one file each, in a folder of the target's name. The tests run the seeds and a bounded number of
mutations of them (hypothesis). ``make fuzz`` runs each target for longer under atheris, which looks for inputs that
take new paths through the code.
"""
