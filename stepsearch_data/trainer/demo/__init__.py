"""What the step rewards are for, shown on two cores: a made-up world, a tiny model, paired trainings."""
