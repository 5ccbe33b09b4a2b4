from artifacts_jax.training import results


def test_results_are_read_as_they_were_written(tmp_path):
    assert results.read(tmp_path) == {}
    results.write(tmp_path, {'dataset': 'cifar10'})
    assert results.read(tmp_path) == {'dataset': 'cifar10'}
    results.write_tables(tmp_path, 'a table\n')
    assert sorted(path.name for path in tmp_path.iterdir()) == ['results.json', 'results.txt']


def test_a_table_is_markdown_with_numbers_to_the_right():
    text = results.format_table(
        ['protocol', 'part', 'accuracy'], [['linear', 'all', '7.00'], ['finetune', 'fold_1', '61.25']], left=2
    )
    assert text.splitlines() == [
        '| protocol | part   | accuracy |',
        '|----------|--------|----------|',
        '| linear   | all    |     7.00 |',
        '| finetune | fold_1 |    61.25 |',
    ]


def test_a_row_is_current_only_with_the_same_provenance(capsys):
    all_results, name, then, now = {}, 'probe/learned', {'network': 'a, state 1'}, {'network': 'a, state 2'}
    assert not results.is_current(all_results, name, then)
    results.move_to_replaced(all_results, name)  # nothing
    assert all_results == {}
    results.add_row(all_results, name, {'conv1': 71}, then)
    assert results.is_current(all_results, name, then)
    assert not results.is_current(all_results, name, now)
    assert all_results == {
        'probe': {'learned': {'conv1': 71}},
        'provenance': {name: then},
    }  # a question changes nothing
    results.move_to_replaced(all_results, name)
    assert 'probe' not in all_results
    assert all_results['replaced'] == [{'part': name, 'provenance': then, 'result': {'conv1': 71}}]
    assert 'probe/learned: the network or its settings have changed' in capsys.readouterr().out


def test_results_of_earlier_states_are_moved_to_replaced(tmp_path):
    all_results = {'probe': {'random': {'a': 1}, 'learned': {'a': 2}}, 'stl10': {'linear': {'all': {'a': 3}}}}
    random, old, new = 'seed 0 at step 0', 'artifacts at step 6, state 1', 'artifacts at step 9, state 2'
    all_results['provenance'] = {
        'probe/random': {'network': random},
        'probe/learned': {'network': old},
        'stl10/linear/all': {'network': old},
    }
    results.write(tmp_path, all_results)
    results.replace_outdated(tmp_path, old)
    assert results.read(tmp_path) == all_results
    results.replace_outdated(tmp_path, new)
    remaining = results.read(tmp_path)
    assert remaining['probe'] == {'random': {'a': 1}}
    assert 'stl10' not in remaining
    assert remaining['provenance'] == {'probe/random': {'network': random}}
    assert [(old['part'], old['result']) for old in remaining['replaced']] == [
        ('probe/learned', {'a': 2}),
        ('stl10/linear/all', {'a': 3}),
    ]


def test_provenance_depends_only_on_relevant_settings(config):
    given = results.compute_provenance('a', config, 'probe')
    assert results.compute_provenance('b', config, 'probe')['settings'] == given['settings']
    for key, value, decides in (
        ('probe.iterations', 7, True),
        ('seed', 3, True),
        ('model.hidden', 8, True),
        ('stl10.epochs', 3, False),
        ('log_every', 5, False),
        ('eval_examples', 5, False),
    ):
        changed = config.copy_and_resolve_references()
        changed.update_from_flattened_dict({key: value})
        assert (results.compute_provenance('a', changed, 'probe') != given) == decides, key


def test_network_table_with_missing_rows():
    networks = {'random': {('conv1', '5'): {'n': 1}, ('conv1', '20'): {'n': 2}}}
    networks['learned'] = {('conv1', '20'): {'n': 3}, ('conv1', '200'): {'n': 4}}
    text = results.format_network_table(['layer', 'k'], networks, lambda row: {'': str(row['n'])})
    assert [line.split('|')[2:5] for line in text.replace(' ', '').splitlines()[2:]] == [
        ['20', '2', '3'],
        ['200', '-', '4'],
        ['5', '1', '-'],
    ]


def test_empty_sections_of_earlier_versions_have_no_rows():
    all_results = {'voc_svm': {'conv1': {}}, 'layerwise': {}, 'knn': {'random': {'layers': {}, 'train': 3}}}
    assert [results.has_rows(all_results, task) for task in ('voc_svm', 'layerwise', 'probe', 'knn')] == [False] * 3 + [
        True
    ]
