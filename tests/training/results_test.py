from artifacts_jax.training import results


def test_results_are_read_as_they_were_written(tmp_path):
    assert results.read(tmp_path) == {}
    results.write(tmp_path, {'dataset': 'cifar10'})
    assert results.read(tmp_path) == {'dataset': 'cifar10'}
    results.write_tables(tmp_path, 'a table\n')
    assert sorted(path.name for path in tmp_path.iterdir()) == ['results.json', 'results.txt']


def test_a_table_is_markdown_with_numbers_to_the_right():
    text = results.table(
        ['protocol', 'part', 'accuracy'], [['linear', 'all', '7.00'], ['finetune', 'fold_1', '61.25']], left=2
    )
    assert text.splitlines() == [
        '| protocol | part   | accuracy |',
        '|----------|--------|----------|',
        '| linear   | all    |     7.00 |',
        '| finetune | fold_1 |    61.25 |',
    ]
