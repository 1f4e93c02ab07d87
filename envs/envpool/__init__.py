"""EnvPool: MiniGrid and BabyAI with captions, Atari, Procgen and others without."""
