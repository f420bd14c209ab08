"""The mutants, rule by rule, and what must work in each of them."""

from __future__ import annotations

from .mutant import Mutant, attack

IMAGE = "tests/e2e/test_security_image.py::"
PROGRAM = "tests/e2e/test_security_program.py::"
ISOLATION = "tests/e2e/test_isolation.py::"
PROCESS = "tests/e2e/test_oci_process.py::"
ALIVE = (
    f"{ISOLATION}TestProcesses::test_the_program_is_process_1",
    "tests/e2e/test_oci_lifecycle.py::test_a_container_is_created_then_running_then_stopped_then_gone",
)
"""Without a defence gocker still runs what is harmless: a test that fails then says something."""

_R1 = (
    Mutant(
        "the_stub_is_not_sealed",
        "R1",
        "run create exec",
        "the last hop is a small file that is sealed",
        "core/kernel/stub.py",
        (("        _seal(fd)\n        return", "        return"),),
        (f"{IMAGE}TestR1::test_the_last_hop_is_a_small_sealed_file",),
    ),
    Mutant(
        "a_magic_link_is_run",
        "R1",
        "run create exec",
        "a command that is a magic link is refused",
        "core/steps/program.py",
        (
            (
                "os.close(openat2(start, path, os.O_PATH, RESOLVE_NO_MAGICLINKS))",
                "os.close(openat2(start, path, os.O_PATH, 0 * RESOLVE_NO_MAGICLINKS))",
            ),
        ),
        (
            f"{IMAGE}TestR1::test_a_link_to_its_own_exe_is_not_run",
            "tests/e2e/test_oci_joining.py::test_its_own_exe_is_not_run",
        ),
    ),
    Mutant(
        "an_interpreter_is_not_looked_at",
        "R1",
        "run create exec",
        "so is such an interpreter of a script or an ELF file",
        "core/steps/program.py",
        (("        _check_interpreter(wanted, name)\n", ""),),
        (f"{IMAGE}TestR1::test_a_program_whose_interpreter_is_its_own_exe_is_not_run",),
    ),
)

_R2 = (
    Mutant(
        "a_path_leaves_the_root",
        "R2",
        "run create",
        "a target's links stay in the root",
        "core/kernel/inroot.py",
        (("IN_ROOT = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS", "IN_ROOT = RESOLVE_NO_MAGICLINKS"),),
        ("tests/kernel/test_inroot.py::test_a_link_never_leads_outside",),
    ),
    Mutant(
        "a_system_directory_is_a_link",
        "R2",
        "run create",
        "/proc, /sys and /dev are directories of the image itself",
        "core/steps/targets.py",
        (
            (
                "    if fd == ctx.root:\n        resolve = SAME_MOUNT\n",
                "    if fd == ctx.root:\n        resolve = IN_ROOT\n",
            ),
            (
                "    if fd == ROOT:\n        resolve = SAME_MOUNT\n",
                "    if fd == ROOT:\n        resolve = IN_ROOT\n",
            ),
        ),
        (f"{IMAGE}TestR2::test_a_link_in_the_place_of_a_system_directory_is_not_followed",),
    ),
    Mutant(
        "a_volume_hides_the_root",
        "R2",
        "run create",
        "no target is the root itself, however it gets there",
        "core/steps/targets.py",
        (('    if path != "/" and (status', '    if path == "" and (status'),),
        (f"{IMAGE}TestR2::test_a_volume_that_a_link_leads_to_proc_or_the_root_is_refused",),
    ),
    Mutant(
        "etc_hosts_is_followed",
        "R2",
        "run",
        "/etc/hosts and the like are covered, not followed",
        "core/kernel/inroot.py",
        (("_ENTRY = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC", "_ENTRY = os.O_PATH | os.O_CLOEXEC"),),
        (f"{IMAGE}TestR2::test_a_link_in_the_place_of_etc_hosts_is_covered",),
    ),
    Mutant(
        "the_root_is_a_link",
        "R2",
        "create",
        "root.path is a directory and no link",
        "core/steps/rootfs.py",
        (("os.open(path, _LAYER | os.O_NOFOLLOW)", "os.open(path, _LAYER)"),),
        (attack("root_is_a_link"),),
    ),
    Mutant(
        "a_device_takes_the_place_of_a_link",
        "R2",
        "create",
        "what lies in the place of a device is the device",
        "core/steps/devices.py",
        (
            (
                "        _require_node(parent, name, path, mode, number)\n        return False",
                "        return True",
            ),
            (
                "os.chown(name, uid, gid, dir_fd=parent, follow_symlinks=False)",
                "os.chown(name, uid, gid, dir_fd=parent)",
            ),
        ),
        (attack("device_on_a_link"),),
    ),
)

_R3 = (
    Mutant(
        "null_is_anything",
        "R3",
        "run create",
        "masks are character device 1:3",
        "core/steps/devices.py",
        (
            (
                "    if not stat.S_ISCHR(status.st_mode) or (os.major(status.st_rdev), os.minor(status.st_rdev)) != number:",
                "    if number != NODES[path.rpartition('/')[2]]:",
            ),
            (
                "        _require_node(parent, name, path, mode, number)\n        return False",
                "        return False",
            ),
        ),
        (attack("null_is_a_plain_file"),),
    ),
    Mutant(
        "nothing_is_masked",
        "R3",
        "run create",
        "masked paths show nothing",
        "core/steps/masks.py",
        (
            (
                "            mount.attach(cover, target)\n            os.close(cover)\n            os.close(target)\n        if empty",
                "            os.close(cover)\n            os.close(target)\n        if empty",
            ),
        ),
        (f"{ISOLATION}TestMounts::test_a_masked_path_shows_nothing", attack("masked_path_is_read")),
    ),
    Mutant(
        "nothing_is_read_only",
        "R3",
        "run create",
        "read-only paths are",
        "core/steps/masks.py",
        (("            mount.set_attributes(cover, mount.MOUNT_ATTR_RDONLY, recursive=True)\n", ""),),
        (f"{ISOLATION}TestMounts::test_a_read_only_path", attack("read_only_path_is_written")),
    ),
    Mutant(
        "a_link_is_protected_for_itself",
        "R3",
        "create",
        "a read-only path that is a link protects what it names",
        "core/steps/masks.py",
        (
            (
                "            if target >= 0 and stat.S_ISLNK(os.fstat(target).st_mode):",
                "            if not target:",
            ),
        ),
        (attack("read_only_path_is_a_link"),),
    ),
    Mutant(
        "a_mask_that_fails_is_passed_over",
        "R3",
        "run create",
        "a path that cannot be masked is fatal",
        "core/steps/masks.py",
        (
            (
                "    except (FileNotFoundError, NotADirectoryError):  # ENOTDIR: a part of the path is a file",
                "    except OSError:",
            ),
        ),
        ("tests/kernel/test_rootfs.py::test_a_masked_path_that_is_a_link_is_fatal",),
    ),
    Mutant(
        "the_root_stays_writable",
        "R3",
        "run create",
        "a read-only root is",
        "core/steps/rootfs.py",
        (("        mount.set_attributes(ctx.root, mount.MOUNT_ATTR_RDONLY)\n", ""),),
        (attack("read_only_root_is_written"),),
    ),
    Mutant(
        "mount_options_are_dropped",
        "R3",
        "run create",
        "what is said of a volume holds",
        "core/steps/mounts.py",
        (
            ('            "attributes": options.attributes,\n', '            "attributes": 0,\n'),
            ('            "attributes": options.deep_attributes,\n', '            "attributes": 0,\n'),
        ),
        (
            attack("program_on_a_noexec_mount"),
            attack("set_user_id_program_on_a_nosuid_mount"),
            attack("read_only_mount_is_written"),
        ),
    ),
)

_R4 = (
    Mutant(
        "fds_are_passed_on",
        "R4",
        "run create exec",
        "no fd but 0, 1, 2",
        "core/steps/exec.py",
        (("        ids.close_on_exec_from(status + 1)\n", ""),),
        (
            f"{ISOLATION}TestWhatIsPassedOn::test_nor_one_that_gocker_was_given",
            "tests/e2e/test_oci_joining.py::test_no_fd_of_its_caller_is_left",
        ),
    ),
    Mutant(
        "preserved_fds_are_kept_open",
        "R4",
        "create exec",
        "gocker lets go of what it passes on",
        "core/steps/preserve.py",
        (("                os.close(fd)\n", "                pass\n"),),
        ("tests/unit/test_process_steps.py::test_only_what_the_caller_passed_on_is_let_go",),
    ),
    Mutant(
        "the_working_directory_is_anywhere",
        "R4",
        "run create exec",
        "the working directory is entered through no magic link, and lies inside",
        "core/steps/identity.py",
        (
            ("openat2(root, self.path, DIRECTORY, IN_ROOT)", "os.open(self.path, DIRECTORY)"),
            ('    if not cwd.startswith(b"/"):', "    if not cwd:"),
        ),
        (
            f"{IMAGE}TestR4::test_a_working_directory_by_fd_is_refused",
            f"{IMAGE}TestR2::test_a_working_directory_that_a_magic_link_leads_to_is_refused",
            attack("cwd_of_exec_by_descriptor"),
        ),
    ),
    Mutant(
        "a_directory_outside_is_not_seen",
        "R4",
        "run create exec",
        "where the kernel says that it is unreachable, nothing starts",
        "core/steps/identity.py",
        (('    if not cwd.startswith(b"/"):', "    if not cwd:"),),
        ("tests/kernel/test_identity.py::test_a_working_directory_outside_the_root_is_seen",),
    ),
)

_R5 = (
    Mutant(
        "a_volume_covers_proc",
        "R5",
        "run create",
        "no volume in /proc, however it gets there",
        "core/steps/targets.py",
        (
            (
                "    if mount.file_system_magic(fd) == mount.PROC_MAGIC:\n        raise",
                "    if fd < 0:\n        raise",
            ),
        ),
        (
            f"{IMAGE}TestR2::test_a_volume_that_a_link_leads_to_proc_or_the_root_is_refused",
            attack("volume_over_proc_by_a_link"),
        ),
    ),
    Mutant(
        "proc_is_whatever_is_bound",
        "R5",
        "create",
        "only a procfs takes the place of /proc",
        "core/steps/targets.py",
        (
            (
                "        if not root:\n            raise _no_procfs(path)\n",
                "        if root is None:\n            raise _no_procfs(path)\n",
            ),
        ),
        (attack("volume_over_proc"), attack("volume_over_proc_by_dotdot")),
    ),
    Mutant(
        "proc_is_written_through_links",
        "R5",
        "run create exec",
        "what is written to the own procfs meets no link and no other mount",
        "core/steps/procfs.py",
        (("os.O_WRONLY | os.O_NOFOLLOW, SAME_MOUNT)", "os.O_WRONLY, 0 * SAME_MOUNT)"),),
        (
            "tests/unit/test_procfs.py::test_a_link_on_the_way_is_not_followed",
            "tests/unit/test_procfs.py::test_another_mount_is_not_entered",
        ),
    ),
    Mutant(
        "a_map_is_written_anywhere",
        "R5",
        "run create",
        "what gocker writes below /proc and /sys is the kernel's",
        "core/steps/launch.py",
        (("            _require_kernel_file(fd, path)\n", ""),),
        (
            "tests/kernel/test_launch_steps.py::TestWriteKernelFile::test_what_lies_on_another_file_system_is_not_written",
        ),
    ),
    Mutant(
        "a_terminal_is_any_file",
        "R5",
        "create exec",
        "a terminal of its own devpts",
        "core/steps/console.py",
        (
            ("    if mount.file_system_magic(master) != mount.DEVPTS_MAGIC:", "    if master < 0:"),
            ("    fcntl.ioctl(master, _TIOCSPTLCK, _UNLOCKED)\n", ""),
            (
                "fcntl.ioctl(master, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)",
                'os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)',
            ),
            ("    if mount.file_system_magic(slave) != mount.DEVPTS_MAGIC:", "    if slave < 0:"),
        ),
        (f"{IMAGE}TestR5::test_the_terminal_is_of_its_own_devpts",),
    ),
    Mutant(
        "labels_are_ignored",
        "R5",
        "create exec",
        "a label that nobody would enforce starts nothing",
        "core/steps/labels.py",
        (
            (
                '            raise _missing("apply AppArmor profile", spec.apparmor_profile, "AppArmor")',
                "            return ()",
            ),
            (
                '            raise _missing("apply SELinux label", spec.selinux_label, "SELinux")',
                "            return ()",
            ),
        ),
        (
            f"{PROCESS}test_a_label_that_nobody_here_enforces_is_refused_by_name",
            attack("apparmor_is_ignored"),
            attack("selinux_is_ignored"),
        ),
    ),
)

_R7 = (
    Mutant(
        "a_module_is_loaded_late",
        "R7",
        "run create exec",
        "nothing is loaded once the root has changed",
        "core/steps/exec.py",
        (
            (
                "        status = stub.STATUS_FD + self.preserve\n        ids",
                "        try:\n            import colorsys  # noqa: F401\n        except ImportError:\n            pass\n        status = stub.STATUS_FD + self.preserve\n        ids",
            ),
        ),
        (attack("late_loading_in_run"), attack("late_loading_in_exec")),
    ),
    Mutant(
        "a_child_returns_into_gocker",
        "R7",
        "run create exec",
        "a child ends in exec or _exit",
        "core/kernel/spawn.py",
        (
            (
                "        os._exit(EXIT_GOCKER_FAILED)\n\n\ndef _spawn_joined",
                "        pass\n\n\ndef _spawn_joined",
            ),
        ),
        ("tests/kernel/test_spawn.py::test_a_child_that_comes_back_ends_there",),
    ),
)

_R8 = (
    Mutant(
        "a_digest_is_any_text",
        "R8",
        "run",
        "a digest is matched in full",
        "core/images.py",
        ((" and _HEX.issuperset(text[7:])", ""),),
        ("tests/unit/test_images.py::test_a_digest_is_what_the_pattern_matches_in_full",),
    ),
    Mutant(
        "an_image_name_is_a_path",
        "R8",
        "run",
        "an image's name is no path",
        "core/images.py",
        (("0 < len(text) <= _MAX_NAME and text[0] in _LETTERS and _NAME.issuperset(text)", "bool(text)"),),
        ("tests/unit/test_images.py::test_a_name_is_what_the_pattern_matches_in_full",),
    ),
)

_R9 = (
    Mutant(
        "the_session_is_the_callers",
        "R9",
        "run create exec",
        "a session of its own",
        "core/steps/identity.py",
        (("            os.setsid()\n", "            pass\n"),),
        (
            f"{ISOLATION}TestProcesses::test_it_leads_a_session_of_its_own",
            attack("terminal_of_the_caller"),
        ),
    ),
    Mutant(
        "the_keyring_is_the_callers",
        "R9",
        "run create exec",
        "a session keyring of its own",
        "core/steps/identity.py",
        (
            (
                "JoinSessionKeyring(name=spec.id)) if spec.session_keyring else steps",
                "JoinSessionKeyring(name=spec.id)) if not spec.id else steps",
            ),
        ),
        (
            f"{PROGRAM}TestR9::test_its_keyring_is_not_the_callers",
            attack("keyring_in_run"),
            attack("keyring_in_exec"),
        ),
    ),
    Mutant(
        "exec_has_no_first_steps",
        "R9",
        "exec",
        "exec begins as run does: undumpable, session, keyring",
        "core/execplan.py",
        (("    init += identity.first_steps(inside)\n", ""),),
        (attack("keyring_in_exec"),),
    ),
    Mutant(
        "the_bounding_set_stays",
        "R9",
        "run create exec",
        "bounding set",
        "core/kernel/caps.py",
        (("            prctl(_PR_CAPBSET_DROP, number)\n", "            prctl(_PR_CAPBSET_READ, number)\n"),),
        (
            f"{ISOLATION}TestPrivileges::test_capabilities_are_dockers",
            attack("capabilities_beyond_the_bounding_set"),
            attack("capabilities_in_exec_are_bounded"),
        ),
    ),
    Mutant(
        "capabilities_are_inherited",
        "R9",
        "run create exec",
        "no capabilities named means none, inheritable and ambient ones neither",
        "core/steps/capabilities.py",
        (
            (
                "caps.set_capabilities(effective, permitted, self.inheritable, self.ambient)",
                "del effective, permitted",
            ),
        ),
        (
            f"{PROGRAM}TestR9::test_capabilities_that_gocker_was_started_with_are_not_passed_on",
            attack("inheritable_capabilities_in_run"),
            attack("inheritable_capabilities_in_exec"),
        ),
    ),
    Mutant(
        "no_new_privs_is_not_planned",
        "R9",
        "run create exec",
        "no_new_privs where it is asked for",
        "core/oci/process.py",
        (
            (
                '"no_new_privileges": section.flag("noNewPrivileges"),',
                '"no_new_privileges": section.flag("noNewPrivileges") and None,',
            ),
        ),
        (attack("set_user_id_program_in_run"), attack("set_user_id_program_in_exec")),
    ),
    Mutant(
        "groups_are_the_callers",
        "R9",
        "run create exec",
        "groups, then ids",
        "core/kernel/ids.py",
        (('    call("setgroups", len(groups), struct.pack(f"={len(groups)}I", *groups))\n', ""),),
        (attack("groups_in_run"), attack("groups_in_exec")),
    ),
    Mutant(
        "nothing_is_filtered",
        "R9",
        "run create exec",
        "the filter",
        "core/steps/exec.py",
        (("            return install_filter(self.program, self.flags)\n", "            return 0\n"),),
        (
            attack("filter_in_run"),
            attack("filter_in_exec"),
            attack("filter_of_af_alg"),
            attack("filter_of_tiocsti"),
        ),
    ),
    Mutant(
        "exec_is_not_filtered",
        "R9",
        "exec",
        "in exec as well",
        "core/execplan.py",
        (
            (
                "seccomp_step(spec, data_root, lasting.pid)",
                "seccomp_step(spec, data_root, lasting.pid) and None",
            ),
        ),
        (attack("filter_in_exec"), attack("filter_and_i386_calls_in_exec")),
    ),
    Mutant(
        "foreign_abis_are_let_in",
        "R9",
        "run",
        "foreign ABIs, TIOCSTI and TIOCLINUX, whatever a profile says",
        "core/seccompcompile.py",
        (
            ("        code += _guard_terminals(machine)\n", ""),
            (
                "jump_if_equal(ARCHES[machine], 1, 0), answer(KILL_PROCESS)",
                "jump_if_equal(ARCHES[machine], 1, 0), answer(ALLOW)",
            ),
        ),
        (f"{PROGRAM}TestR9::test_the_filter_refuses_what_docker_refuses_and_foreign_abis",),
    ),
    Mutant(
        "nobody_listens_and_it_starts",
        "R9",
        "create exec",
        "a filter that asks has a listener, or starts nothing",
        "core/launcher.py",
        (
            (
                "            pass_on(memory, self.ctx.pidfd, channel.fileno())\n",
                "            os.close(memory)\n",
            ),
        ),
        (f"{PROCESS}test_without_who_listens_a_created_container_does_not_start",),
    ),
    Mutant(
        "exec_does_not_become_root_of_its_namespace",
        "R9",
        "exec",
        "exec takes on ids of the container's user namespace, without groups",
        "core/execplan.py",
        (("        init.append(BecomeRoot())\n", "        pass\n"),),
        ("tests/unit/test_execplan.py::test_in_a_user_namespace_it_is_root_there_before_that",),
    ),
)

_R10 = (
    Mutant(
        "an_id_has_no_bound",
        "R10",
        "create exec",
        "ids from 0 to 2^32-2 in a configuration",
        "core/oci/fields.py",
        (("MAX_ID = (1 << 32) - 2", "MAX_ID = (1 << 34) - 2"),),
        ("tests/unit/test_oci_process.py::test_an_id_is_a_whole_number_below_the_one_that_means_none",),
    ),
    Mutant(
        "false_is_root",
        "R10",
        "create exec",
        "no truth value is a number",
        "core/oci/fields.py",
        (
            (
                "        if type(value) is not int or not low",
                "        if not isinstance(value, int) or not low",
            ),
        ),
        (attack("uid_is_a_boolean"),),
    ),
    Mutant(
        "a_user_on_the_command_line_has_no_bound",
        "R10",
        "run",
        "nor on the command line",
        "core/steps/users.py",
        (("    if len(text) > len(str(MAX_ID)) or int(text) > MAX_ID:", "    if len(text) > 1000:"),),
        (f"{IMAGE}TestR10::test_a_user_is_not_root_by_accident",),
    ),
    Mutant(
        "a_line_of_nonsense_is_a_user",
        "R10",
        "run",
        "and in the image's passwd and group",
        "core/steps/users.py",
        (
            ("    if not field.isdigit() or len(field) > len(str(MAX_ID)):\n        return None\n", ""),
            (
                "    number = int(field)\n",
                '    number = int(b"".join(c for c in [field] if c.isdigit()) or 0) % (1 << 32)\n',
            ),
        ),
        (f"{IMAGE}TestR10::test_a_line_that_makes_no_sense_names_nobody",),
    ),
    Mutant(
        "passwd_is_waited_for",
        "R10",
        "run create exec",
        "which are plain files, that nobody is waited for",
        "core/steps/users.py",
        (
            (
                "_DATABASE = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW",
                "_DATABASE = os.O_RDONLY | os.O_NOFOLLOW",
            ),
        ),
        (attack("passwd_is_a_fifo"), attack("passwd_is_a_fifo_in_exec")),
    ),
    Mutant(
        "passwd_is_read_whole",
        "R10",
        "run create exec",
        "of at most 10 MiB",
        "core/steps/users.py",
        (("        if info.st_size > _MAX_DATABASE:", "        if info.st_size < 0:"),),
        (attack("passwd_is_huge"),),
    ),
)

_R11 = (
    Mutant(
        "an_id_is_a_path",
        "R11",
        "run create exec delete",
        "ids are plain",
        "core/state.py",
        (
            (
                "    return 0 < len(text) <= _MAX_ID and text[0] in _FIRST and _OTHER.issuperset(text)",
                "    return bool(text)",
            ),
        ),
        (
            "tests/unit/test_state.py::test_an_id_is_what_the_pattern_matches_in_full",
            attack("exec_by_path"),
            attack("kill_by_path"),
            attack("delete_by_path"),
        ),
    ),
    Mutant(
        "an_id_is_looked_up_as_it_is",
        "R11",
        "exec delete",
        "in every verb that finds a container",
        "core/state.py",
        (
            (
                '        if not is_id(container):\n            raise StateError("use container"',
                '        if not container:\n            raise StateError("use container"',
            ),
        ),
        (attack("exec_by_path"), attack("delete_by_path"), attack("state_by_path")),
    ),
    Mutant(
        "state_is_another_users",
        "R11",
        "run create exec delete",
        "nobody else writes where state is",
        "core/state.py",
        (
            (
                "            if status.st_uid != os.geteuid() or status.st_mode & 0o022:",
                "            if status.st_mode < 0:",
            ),
        ),
        (
            "tests/e2e/test_bad_input.py::test_one_that_others_may_write",
            attack("state_directory_of_another_user"),
        ),
    ),
    Mutant(
        "containers_are_made_at_anothers",
        "R11",
        "run",
        "nor where containers are made",
        "core/steps/host.py",
        (("    if others_write or status.st_uid", "    if status.st_uid < 0 and status.st_uid"),),
        ("tests/e2e/test_bad_input.py::test_one_that_others_may_write",),
    ),
    Mutant(
        "state_is_for_all",
        "R11",
        "run create",
        "what is made is gocker's alone",
        "core/statefiles.py",
        (
            (
                "        os.mkdir(hidden, 0o700, dir_fd=containers)",
                "        os.mkdir(hidden, 0o777, dir_fd=containers)",
            ),
            (
                "os.open(name, _NEW_FILE, 0o600, dir_fd=directory)",
                "os.open(name, _NEW_FILE, 0o666, dir_fd=directory)",
            ),
        ),
        ("tests/unit/test_state.py::test_the_plan_is_on_disk_in_private_files_while_the_container_lives",),
    ),
    Mutant(
        "a_pid_is_believed",
        "R11",
        "exec delete",
        "a pid counts with its start time alone",
        "core/lasting.py",
        (
            (
                "        same = start_time(lasting.pid) == lasting.started\n",
                "        same = start_time(lasting.pid) >= 0\n",
            ),
        ),
        (attack("kill_of_a_pid_used_again"), attack("delete_of_a_pid_used_again")),
    ),
    Mutant(
        "exec_believes_a_pid",
        "R11",
        "exec",
        "before and after its namespaces are opened",
        "core/steps/joining.py",
        (
            (
                "            same = start_time(self.pid) == self.started\n",
                "            same = start_time(self.pid) >= 0\n",
            ),
        ),
        ("tests/kernel/test_joining.py::test_a_pid_that_was_given_anew_is_another_s",),
    ),
    Mutant(
        "exec_does_not_look_again",
        "R11",
        "exec",
        "the second time when they are open",
        "core/execplan.py",
        (
            (
                "            _clone(lasting.pid, handlers, _born(groups, lasting)),\n            alive,\n",
                "            _clone(lasting.pid, handlers, _born(groups, lasting)),\n",
            ),
        ),
        ("tests/unit/test_execplan.py::test_the_first_process_is_proved_before_and_after_the_clone",),
    ),
    Mutant(
        "a_pid_file_is_followed",
        "R11",
        "create exec",
        "what a caller names is made anew, and never followed",
        "core/ocicli/common.py",
        (
            (
                '    temporary = os.path.join(directory, f".{name}.gocker")',
                "    temporary = os.path.join(directory, name)",
            ),
            ("                os.unlink(temporary)\n", "                pass\n"),
            (
                "os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)",
                "os.O_WRONLY | os.O_CREAT, 0o644)",
            ),
        ),
        (attack("pid_file_is_a_link"), attack("pid_file_is_a_fifo")),
    ),
    Mutant(
        "what_runs_is_deleted",
        "R11",
        "delete",
        "a container that runs is deleted by force alone",
        "core/lifecycle.py",
        (("        if status != STOPPED and not force:", "        if status is None and not force:"),),
        ("tests/e2e/test_oci_lifecycle.py::test_a_running_container_is_deleted_with_force_alone",),
    ),
    Mutant(
        "anybody_starts_a_container",
        "R11",
        "create",
        "a container is started by whoever created it: the peer's credentials",
        "core/steps/barrier.py",
        (("    return theirs == ours", "    return bool(theirs or ours) or True"),),
        ("tests/kernel/test_barrier.py::test_another_user_is_not_listened_to",),
    ),
)

_R12 = (
    Mutant(
        "the_environment_is_the_callers",
        "R12",
        "run create exec",
        "the environment is what was asked for",
        "core/kernel/stub.py",
        (
            (
                '_strings([f"{name}={value}" for name, value in env])',
                '_strings([f"{name}={value}" for name, value in (*env, *os.environ.items())])',
            ),
        ),
        (
            f"{PROGRAM}TestR12::test_a_hostile_environment_of_gocker_does_not_reach_the_program",
            attack("environment_of_the_caller_in_run"),
            attack("environment_of_the_caller_in_exec"),
        ),
    ),
    Mutant(
        "a_variable_needs_no_value",
        "R12",
        "create exec",
        "no entry without a name or a value",
        "core/oci/process.py",
        (("        if not name or not equals:", "        if name is None:"),),
        ("tests/unit/test_oci_process.py::test_an_environment_entry_has_a_name_and_an_equals_sign",),
    ),
    Mutant(
        "a_nul_is_passed_on",
        "R12",
        "create exec",
        "nor with NUL",
        "core/oci/document.py",
        (('        if "\\0" in text:', '        if "\\0\\0\\0" in text:'),),
        ("tests/unit/test_oci_document.py::test_a_nul_is_refused_wherever_it_is",),
    ),
)

_R13 = (
    Mutant(
        "a_document_has_no_bound",
        "R13",
        "create exec",
        "documents of at most 4 MiB",
        "core/oci/document.py",
        (("    if len(data) > MAX_BYTES:", "    if not isinstance(data, bytes):"),),
        ("tests/unit/test_oci_document.py::test_four_mebibytes_are_read_and_no_byte_more",),
    ),
    Mutant(
        "a_file_is_read_to_its_end",
        "R13",
        "create exec",
        "of which no more is read",
        "core/ocicli/common.py",
        (("        if len(data) > _MAX_CONFIG:", "        if not _MAX_CONFIG:"),),
        ("tests/unit/test_oci_files.py::test_four_mebibytes_are_read_and_no_byte_more",),
    ),
    Mutant(
        "a_document_has_no_depth",
        "R13",
        "create exec",
        "and 64 levels",
        "core/oci/document.py",
        (("    _check_depth(data, operation)\n", ""),),
        ("tests/unit/test_oci_document.py::test_64_levels_are_read_and_no_level_more",),
    ),
    Mutant(
        "a_name_stands_twice",
        "R13",
        "create exec",
        "no name is there twice",
        "core/oci/document.py",
        (("    if len(values) != len(pairs):", "    if len(values) > len(pairs):"),),
        ("tests/unit/test_oci_document.py::test_a_name_that_stands_twice_is_refused",),
    ),
    Mutant(
        "an_object_is_anything",
        "R13",
        "create exec",
        "a document is an object",
        "core/oci/document.py",
        (("    if not isinstance(value, dict):\n        raise", "    if value is data:\n        raise"),),
        ("tests/unit/test_oci_document.py::test_what_is_no_object_is_refused",),
    ),
    Mutant(
        "a_config_is_waited_for",
        "R13",
        "create exec",
        "nobody is waited for who writes it",
        "core/ocicli/common.py",
        (("_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC", "_READ = os.O_RDONLY | os.O_CLOEXEC"),),
        (attack("config_is_a_fifo"), attack("process_is_a_fifo")),
    ),
    Mutant(
        "a_profile_has_no_bound",
        "R13",
        "run",
        "profiles of at most 4 MiB",
        "core/seccompprofile.py",
        (("        if len(data) > MAX_BYTES:", "        if data is None:"),),
        ("tests/unit/test_seccomp.py::test_a_file_that_is_no_profile_is_refused",),
    ),
    Mutant(
        "a_namespace_is_waited_for",
        "R13",
        "create",
        "nor for a namespace",
        "core/kernel/spawn.py",
        (
            (
                "os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)",
                "os.open(path, os.O_RDONLY | os.O_CLOEXEC)",
            ),
        ),
        (attack("namespace_path_is_a_fifo"),),
    ),
    Mutant(
        "a_namespace_is_of_any_kind",
        "R13",
        "create",
        "which is of the kind that it is called",
        "core/kernel/process.py",
        (
            (
                "        same = ioctl(fd, _NS_GET_NSTYPE) == flag\n",
                "        same = ioctl(fd, _NS_GET_NSTYPE) > 0\n",
            ),
        ),
        ("tests/kernel/test_spawn.py::test_what_is_no_namespace_of_the_kind_is_refused_by_name",),
    ),
    Mutant(
        "errors_write_to_the_terminal",
        "R13",
        "run create exec delete",
        "an error is one line without control characters",
        "core/cli/show.py",
        (("    if not text.isprintable():", "    if not text:"),),
        (
            f"{PROGRAM}TestR13::test_a_program_that_names_itself_in_escapes_does_not_write_to_the_terminal",
            attack("error_with_escapes"),
        ),
    ),
    Mutant(
        "a_log_is_forged",
        "R13",
        "create exec",
        "nor is a line of a log anything else",
        "core/ocicli/log.py",
        (
            (
                'line = json.dumps({"level": level, "msg": message, "time": now}, separators=(",", ":"))',
                'line = f\'{{"level":"{level}","msg":"{message}","time":"{now}"}}\'',
            ),
        ),
        (attack("log_is_forged"),),
    ),
)

_R14 = (
    Mutant(
        "mounts_travel",
        "R14",
        "run create",
        "no mount travels to the host",
        "core/steps/rootfs.py",
        (('        mount.set_propagation(b"/", mount.MS_PRIVATE | mount.MS_REC)\n', ""),),
        (attack("mounts_of_the_setup_travel_to_the_host"),),
    ),
    Mutant(
        "the_root_is_changed_by_chroot",
        "R14",
        "run create",
        "the root is pivoted, and the old one gone",
        "core/steps/rootfs.py",
        (
            ("        mount.pivot_root_here()\n", '        os.chroot(".")\n'),
            ('        mount.detach(b".")\n', ""),
        ),
        (attack("escape_by_chroot"), attack("escape_by_setns"), attack("escape_by_chroot_in_exec")),
    ),
    Mutant(
        "the_old_root_stays",
        "R14",
        "run create",
        "nothing of it lies below",
        "core/steps/rootfs.py",
        (('        mount.detach(b".")\n', ""),),
        (f"{ISOLATION}TestMounts::test_none_of_the_hosts_is_left",),
    ),
    Mutant(
        "the_first_process_is_dumpable",
        "R14",
        "run create exec",
        "undumpable from clone to exec",
        "core/kernel/spawn.py",
        (("    prctl(process.PR_SET_DUMPABLE, 0)\n", "    prctl(process.PR_SET_DUMPABLE, 1)\n"),),
        ("tests/kernel/test_spawn.py::test_nobody_looks_into_it_from_the_moment_it_is_born",),
    ),
    Mutant(
        "there_is_no_mount_namespace",
        "R14",
        "create",
        "there is no container without a mount namespace",
        "core/oci/linux.py",
        (('    if "mount" not in requests:', '    if "mount" in ():'),),
        ("tests/unit/test_oci_linux.py::test_a_root_needs_a_mount_namespace",),
    ),
    Mutant(
        "the_host_is_renamed",
        "R14",
        "create",
        "nor a name in the host's own namespace",
        "core/oci/spec.py",
        (('        if text and modes.get("uts", "host") == "host":', "        if text is None:"),),
        ("tests/unit/test_oci_spec.py::test_a_name_does_not_rename_the_host",),
    ),
)

_R15 = (
    Mutant(
        "all_devices_are_allowed",
        "R15",
        "run create exec",
        "only the devices of the list",
        "core/steps/devicefilter.py",
        (
            (
                "        allowed, denied = self._v1()\n        if ALL",
                "        return\n        allowed, denied = self._v1()\n        if ALL",
            ),
            ("            attach_device_filter(directory, program)\n", "            del program\n"),
        ),
        (
            f"{PROGRAM}TestDevices::test_a_node_in_dev_can_be_made_and_not_opened",
            attack("device_in_run"),
            attack("device_in_exec"),
        ),
    ),
    Mutant(
        "exec_stays_out_of_the_cgroups",
        "R15",
        "exec",
        "exec is in the container's cgroups",
        "core/execplan.py",
        (
            (
                "    init: list[Step] = [JoinCgroup(path=group.path, controller=_name(group)) for group in v1]\n",
                "    init: list[Step] = []\n",
            ),
        ),
        (attack("device_in_exec"),),
    ),
    Mutant(
        "exec_climbs_out_of_the_cgroup",
        "R15",
        "exec",
        "or below them",
        "core/execplan.py",
        (('    if ".." in cgroup.replace(":", "/").split("/"):', '    if cgroup == "..":'),),
        ("tests/e2e/test_oci_joining.py::test_a_cgroup_of_an_exec_does_not_climb",),
    ),
    Mutant(
        "nodes_work_on_volumes",
        "R15",
        "run",
        "no nodes on volumes",
        "core/cli/mounts.py",
        (('        words = ("rnodev", *words)', "        words = (*words,)"),),
        (f"{PROGRAM}TestDevices::test_elsewhere_no_node_works_at_all",),
    ),
    Mutant(
        "nodes_work_in_the_image",
        "R15",
        "run",
        "no nodes in the image",
        "core/steps/rootfs.py",
        (('        wanted = {"nodev": self.nodev,', '        wanted = {"nodev": False,'),),
        (f"{PROGRAM}TestDevices::test_a_node_that_the_image_brings_does_not_work",),
    ),
    Mutant(
        "a_cgroup_leaves_its_place",
        "R15",
        "create",
        "cgroupsPath is confined",
        "core/oci/linux.py",
        (('        if part == ".." or len', "        if len"),),
        ("tests/unit/test_oci_linux.py::test_a_cgroup_path_does_not_leave_its_place",),
    ),
    Mutant(
        "a_cgroup_is_made_anywhere",
        "R15",
        "run create delete",
        "and so is every cgroup that is made or removed",
        "core/kernel/cgroupfs.py",
        (
            (
                "    if not path.startswith(f\"{base.rstrip('/')}/\") or not",
                "    if not path or not path and not",
            ),
        ),
        (
            "tests/unit/test_cgroup_steps.py::TestMakeAndRemove::test_a_path_outside_the_base_is_never_touched",
        ),
    ),
    Mutant(
        "all_cgroups_are_seen",
        "R15",
        "run create",
        "cgroups in a namespace of its own",
        "core/steps/launch.py",
        (("        unshare(process.CLONE_NEWCGROUP)\n", "        unshare(0)\n"),),
        (
            f"{ISOLATION}TestCgroups::test_its_own_cgroup_is_the_root_of_all",
            attack("cgroups_of_others_are_seen"),
        ),
    ),
    Mutant(
        "cgroups_are_writable",
        "R15",
        "run create",
        "and read-only",
        "core/steps/cgroupfs.py",
        (
            (
                "        attributes = options.attributes | options.deep_attributes\n        target = system_directory(ctx, self.target)\n",
                "        attributes = 0\n        target = system_directory(ctx, self.target)\n",
            ),
            (
                "        attributes = options.attributes | options.deep_attributes\n        target = emit_system_directory(code, self.target)\n",
                "        attributes = 0\n        target = emit_system_directory(code, self.target)\n",
            ),
        ),
        (f"{PROGRAM}TestCgroups::test_no_file_of_its_cgroups_can_be_written", attack("cgroup_is_written")),
    ),
    Mutant(
        "a_sysctl_of_the_machine_is_set",
        "R15",
        "run create",
        "sysctls per namespace",
        "core/planner.py",
        (
            (
                "        if not owners:\n            raise UsageError(",
                "        if owners is None:\n            raise UsageError(",
            ),
            ("        kind = owners[0].name\n", '        kind = owners[0].name if owners else "mount"\n'),
        ),
        (attack("sysctl_of_no_namespace"), attack("sysctl_of_the_kernel")),
    ),
    Mutant(
        "a_sysctl_of_the_hosts_namespace_is_set",
        "R15",
        "run create",
        "which is the container's own",
        "core/planner.py",
        (
            (
                '        if spec.namespace(kind).mode != "private":',
                '        if spec.namespace(kind).mode == "":',
            ),
        ),
        ("tests/unit/test_planner.py::test_a_sysctl_of_a_namespace_that_is_shared_is_refused",),
    ),
    Mutant(
        "a_sysctl_climbs",
        "R15",
        "run create",
        "without `..`",
        "core/steps/namespaces.py",
        (('not all(part.strip(".") for part in parts)', "not all(parts)"),),
        ("tests/e2e/test_bad_input.py::test_a_sysctl_that_cannot_be",),
    ),
    Mutant(
        "a_user_namespace_has_no_maps",
        "R15",
        "create",
        "maps are there",
        "core/oci/linux.py",
        (('    if mode == "private" and not maps[0]:', '    if mode == "" and not maps[0]:'),),
        ("tests/unit/test_oci_linux.py::test_a_user_namespace_without_maps_is_refused",),
    ),
    Mutant(
        "maps_overlap",
        "R15",
        "create",
        "full, and do not overlap",
        "core/oci/idmaps.py",
        (("            if start + count > following:", "            if start > following:"),),
        ("tests/unit/test_oci_linux.py::test_a_bad_map_is_refused",),
    ),
    Mutant(
        "maps_of_a_mount_are_ignored",
        "R15",
        "create",
        "of a mount, too",
        "core/steps/mounts.py",
        (("        if self.uid_map or self.userns:\n", "        if self.userns:\n"),),
        (attack("id_map_of_a_mount_is_ignored"),),
    ),
    Mutant(
        "processes_outlive_their_container",
        "R15",
        "run delete",
        "the whole cgroup ends with the container",
        "core/kernel/cgroupfs.py",
        (
            (
                "    while pids := processes(path):\n        if not whole:\n",
                "    while pids := []:\n        if not whole:\n",
            ),
            ('_try_write(path, "cgroup.kill", "1")', "False"),
        ),
        (attack("process_that_outlives_delete"),),
    ),
    Mutant(
        "cgroups_of_before_a_reboot",
        "R15",
        "delete",
        "a cgroup of before a reboot is nobody's",
        "core/lasting.py",
        (
            (
                "    return lasting if lasting.boot == boot_id() else lasting.replace(groups=())",
                "    return lasting",
            ),
        ),
        (
            "tests/e2e/test_oci_lifecycle.py::test_what_is_left_of_before_a_reboot_goes_without_the_cgroup_that_another_has_now",
        ),
    ),
    Mutant(
        "cgroup_that_another_has_claimed",
        "R15",
        "create",
        "and what a killed gocker had not made is another's",
        "core/steps/cgroup.py",
        (
            (
                "        return cgroupfs.claimant(self.path) not in {self.owner, None}",
                "        return cgroupfs.claimant(self.path) is self",
            ),
        ),
        (
            "tests/kernel/test_cgroup_steps.py::TestMakeAndUndo::test_of_two_containers_of_one_id_the_second_leaves_the_firsts_cgroup_alone",
        ),
    ),
)

MUTANTS = (*_R1, *_R2, *_R3, *_R4, *_R5, *_R7, *_R8, *_R9, *_R10, *_R11, *_R12, *_R13, *_R14, *_R15)
"""R6 is about layers of images, which gocker does not unpack."""
