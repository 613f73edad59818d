"""What the tasks of `divprune/lmms_eval_plugin/tasks` call: prompts, images, videos and scores.

lmms-eval's own functions are used wherever they do what the paper's evaluation did and give the same score each time.
"""
