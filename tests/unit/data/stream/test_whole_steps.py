from tiny import image_text_batch

from blip2_train.data.stream.whole_steps import WholeSteps


def test_the_first_micro_batch_of_a_step_holds_the_others() -> None:
    batches = [image_text_batch(2, seed=seed) for seed in range(6)]
    steps = WholeSteps(batches, accumulate=3)
    assert len(steps) == 6
    read = list(steps)
    assert [batch.sample_ids for batch in read] == [batch.sample_ids for batch in batches]
    assert [[one.sample_ids for one in batch.following] for batch in read] == [
        [batch.sample_ids for batch in batches[1:3]], [], [], [batch.sample_ids for batch in batches[4:]], [], []
    ]  # fmt: skip


def test_no_more_is_read_than_a_step() -> None:
    numbers = []

    class Loader:
        def __len__(self) -> int:
            return 4

        def __iter__(self):  # type: ignore[no-untyped-def]
            for number in range(4):
                numbers.append(number)
                yield image_text_batch(1, seed=number)

    iterator = iter(WholeSteps(Loader(), accumulate=2))
    next(iterator)
    next(iterator)
    assert numbers == [0, 1]
