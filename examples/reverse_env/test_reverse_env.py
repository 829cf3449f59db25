from ludus.envs import make_env


def test_the_reversed_word_scores_1_and_the_word_itself_0() -> None:
    env = make_env("reverse/Reverse-v0", letters=4)
    for index in range(20):
        prompt, _ = env.reset(options={"index": index})
        word = prompt.split()[-1]
        assert env.step(word[::-1])[1] == 1.0
        env.reset(options={"index": index})
        assert env.step(word)[1] == float(word == word[::-1])
