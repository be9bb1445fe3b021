"""StePPO: step-wise PPO for language models that search.

Read in this order:

maths    advantages, losses and token rewards, as pure tensor functions
episode  the rules between policy and engine; score says what an episode earns, and on which tokens
rollout  many episodes at once; sampler and vllm write the turns
update   what is learnt from a batch; model holds policy, critic and reference
train    the loop around it: checkpoints, evaluation, metrics
launch   from a recipe to a training; sft is the cold start before it

Rooms beside it: watching a training, and the demo. `evaluation` asks a policy questions and plots several runs.
"""
