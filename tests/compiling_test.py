from tests import compiling


def test_a_flag_that_this_jaxlib_lacks_is_not_given():
    assert compiling._knows('xla_force_host_platform_device_count')
    assert not compiling._knows('xla_no_such_flag_at_all')
