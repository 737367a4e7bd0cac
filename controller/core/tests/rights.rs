use proptest::prelude::*;
use sculpt_core::rights::{Grants, Right, Role, Visible};

/// What each role may, written out: a right that moves is seen here.
#[test]
fn roles_and_rights() {
    let table = [
        //                 viewer, operator, driver, shell, forwarder, pair, maintainer, admin
        (Right::Read, [true, true, true, true, true, true, true, true]),
        (Right::Create, [false, true, false, false, false, false, true, true]),
        (Right::Steer, [false, true, false, false, false, false, true, true]),
        (Right::Drive, [false, false, true, false, false, true, true, true]),
        (Right::Shell, [false, false, false, true, false, true, true, true]),
        (Right::Forward, [false, false, false, false, true, true, true, true]),
        (Right::Merge, [false, false, false, false, false, false, true, true]),
        (Right::Found, [false, true, false, false, false, false, true, true]),
        (Right::Fleet, [false, false, false, false, false, false, false, true]),
        (Right::Administer, [false, false, false, false, false, false, false, true]),
    ];
    assert_eq!(table.map(|(right, _)| right), Right::ALL);
    for (right, row) in table {
        for (role, may) in Role::ALL.into_iter().zip(row) {
            assert_eq!(role.rights().has(right), may, "{role} and {right:?}");
        }
    }
}

#[test]
fn names_come_back() {
    for role in Role::ALL {
        assert_eq!(role.as_str().parse(), Ok(role));
    }
    let error = "root".parse::<Role>().expect_err("no such role").to_string();
    assert!(error.contains("viewer, operator, driver, shell, forwarder, pair, maintainer and admin"), "{error}");
}

#[test]
fn an_admin_of_one_project_rules_no_fleet() {
    let grants = Grants::of([(Some(1), Role::Admin)]);
    assert!(grants.in_project(&1).has(Right::Merge));
    assert!(!grants.in_project(&2).has(Right::Read));
    for right in Right::ALL {
        assert!(!grants.everywhere().has(right), "{right:?}");
        assert_eq!(grants.somewhere(right), right.is_of_project(), "{right:?}");
    }
    assert_eq!(grants.visible(), Visible::Only([1].into()));
}

#[test]
fn nobody_sees_anything_without_a_role() {
    let grants = Grants::<u8>::of([]);
    assert_eq!(grants.visible(), Visible::Only([].into()));
    assert!(Right::ALL.into_iter().all(|right| !grants.somewhere(right)));
}

fn any_grants() -> impl Strategy<Value = Grants<u8>> {
    let role = prop::sample::select(&Role::ALL[..]);
    prop::collection::vec((prop::option::of(0..4_u8), role), 0..5).prop_map(Grants::of)
}

proptest! {
    #[test]
    fn a_scope_only_narrows(own in any_grants(), scope in any_grants()) {
        let left = own.narrowed(&scope);
        for right in Right::ALL {
            let both = own.everywhere().has(right) && scope.everywhere().has(right);
            prop_assert_eq!(left.everywhere().has(right), both);
            for project in 0..5 {
                let both = own.in_project(&project).has(right) && scope.in_project(&project).has(right);
                prop_assert_eq!(left.in_project(&project).has(right), both, "{:?} in {}", right, project);
                prop_assert!(!left.in_project(&project).has(right) || left.visible().has(&project));
            }
        }
    }

    #[test]
    fn roles_that_are_shown_give_what_there_is_and_none_is_needless(own in any_grants(), scope in any_grants()) {
        for grants in [own.clone(), own.narrowed(&scope)] {
            let roles = grants.roles();
            let again = Grants::of(roles.clone());
            prop_assert!(again.cover(&grants) && grants.cover(&again), "{:?} are shown for {:?}", roles, grants);
            for at in 0..roles.len() {
                let mut less = roles.clone();
                let one = less.remove(at);
                prop_assert!(!Grants::of(less).cover(&grants), "{:?} of {:?} is needless", one, roles);
            }
        }
    }
}

/// What somebody is, in projects or everywhere.
type Roles<'r> = &'r [(Option<u8>, Role)];

#[test]
fn what_a_scope_leaves_is_shown_as_roles() {
    use Role::{Admin, Driver, Forwarder, Maintainer, Operator, Pair, Shell, Viewer};
    let (all, web, ops) = (None, Some(1), Some(2));
    let table: &[[Roles<'_>; 3]] = &[
        [&[(web, Viewer)], &[(web, Maintainer)], &[(web, Viewer)]],
        [&[(web, Maintainer)], &[(web, Viewer)], &[(web, Viewer)]],
        [&[(web, Operator)], &[(ops, Operator)], &[]],
        [&[(web, Operator)], &[(all, Admin)], &[(web, Operator)]],
        [&[(all, Admin)], &[(web, Operator)], &[(web, Operator)]],
        // In one project an admin is a maintainer.
        [&[(all, Admin)], &[(web, Admin)], &[(web, Maintainer)]],
        [&[(all, Admin)], &[(all, Admin)], &[(all, Admin)]],
        [&[(web, Operator), (web, Pair)], &[(web, Maintainer)], &[(web, Operator), (web, Pair)]],
        [&[(web, Operator)], &[(web, Pair)], &[(web, Viewer)]],
        [&[(all, Viewer), (web, Operator)], &[(all, Operator)], &[(all, Viewer), (web, Operator)]],
        [&[(all, Maintainer)], &[(all, Viewer), (web, Viewer)], &[(all, Viewer)]],
        [&[(all, Operator), (web, Pair)], &[(all, Admin)], &[(all, Operator), (web, Pair)]],
        [&[(web, Pair)], &[(web, Driver)], &[(web, Driver)]],
        [&[(web, Pair)], &[(web, Driver), (web, Forwarder)], &[(web, Driver), (web, Forwarder)]],
        [&[(web, Pair)], &[(web, Driver), (web, Shell), (web, Forwarder)], &[(web, Pair)]],
        [&[(web, Driver)], &[(web, Shell)], &[(web, Viewer)]],
        [&[], &[(all, Admin)], &[]],
    ];
    for [own, scope, left] in table {
        let [own_grants, scope_grants] = [own, scope].map(|roles| Grants::of(roles.iter().copied()));
        assert_eq!(own_grants.narrowed(&scope_grants).roles(), *left, "{own:?} by {scope:?}");
    }
}

#[test]
fn what_covers_something_takes_nothing_of_it_away() {
    let of = |roles: &[(Option<u8>, Role)]| Grants::of(roles.iter().copied());
    let (nothing, all) = (of(&[]), of(&[(None, Role::Admin)]));
    let web = of(&[(Some(1), Role::Operator)]);
    let both = of(&[(Some(1), Role::Operator), (Some(2), Role::Viewer)]);
    for grants in [&nothing, &all, &web, &both] {
        assert!(grants.cover(grants) && grants.cover(&nothing) && all.cover(grants));
    }
    assert!(both.cover(&web) && !web.cover(&both), "a project was lost");
    assert!(!of(&[(Some(1), Role::Viewer)]).cover(&web), "rights in one were lost");
    assert!(of(&[(None, Role::Operator)]).cover(&web), "everywhere is there, too");
    assert!(!web.cover(&of(&[(None, Role::Operator)])), "there is not everywhere");
}

#[test]
fn the_least_role_with_a_right_is_named() {
    for right in Right::ALL {
        let role = Role::with(right);
        assert!(role.rights().has(right), "{right:?}");
        assert!(Role::ALL.iter().take_while(|less| **less != role).all(|less| !less.rights().has(right)));
    }
}
